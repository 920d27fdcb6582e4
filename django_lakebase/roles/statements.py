"""SQL statements about roles, grants and ownership, as text that can be run."""

from collections.abc import Iterable, Sequence

from psycopg.sql import Identifier, Literal

from django_lakebase.base import membership_options

# What a Django project needs. REFERENCES is for foreign keys to the tables of another
# owner, UPDATE on sequences is for setval(), which loaddata uses.
TABLE_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "REFERENCES")
SEQUENCE_PRIVILEGES = ("USAGE", "SELECT", "UPDATE")
READ_ONLY_PRIVILEGES = ("SELECT",)
# PostgreSQL's limit for names, in bytes.
LONGEST_NAME = 63
CREATE_AUTH_EXTENSION = "CREATE EXTENSION IF NOT EXISTS databricks_auth;"


def quoted(*names: str) -> str:
    """Return the identifier with the parts *names*, quoted."""
    return Identifier(*names).as_string(None)


def create_oauth_role(role: str, identity_type: str) -> str:
    """Create a role that logs in with tokens."""
    name, kind = Literal(role).as_string(None), Literal(identity_type).as_string(None)
    return f"SELECT databricks_create_role({name}, {kind});"


def create_group_role(role: str) -> str:
    """Create a role that cannot log in."""
    return f"CREATE ROLE {quoted(role)} NOLOGIN;"


def grant_membership(group: str, member: str, version: int) -> str:
    """
    Let *member* use the privileges of *group*, and switch to it.

    *version* is the server's, as in ``server_version_num``.
    """
    options = membership_options(version)
    return f"GRANT {quoted(group)} TO {quoted(member)}{options};"


def grant_database(privileges: Iterable[str], database: str, role: str) -> str:
    """Grant *privileges* on the database."""
    listed = ", ".join(privileges)
    return f"GRANT {listed} ON DATABASE {quoted(database)} TO {quoted(role)};"


def grant_schema(privileges: Iterable[str], schema: str, role: str) -> str:
    """Grant *privileges* on the schema itself."""
    listed = ", ".join(privileges)
    return f"GRANT {listed} ON SCHEMA {quoted(schema)} TO {quoted(role)};"


def grant_relations(privileges: Iterable[str], relations: str, role: str) -> str:
    """Grant *privileges* on *relations*, from `relations_of` or `all_relations_of`."""
    return f"GRANT {', '.join(privileges)} ON {relations} TO {quoted(role)};"


def relations_of(kind: str, schema: str, names: Sequence[str]) -> str:
    """Return the named relations; *kind* is TABLE or SEQUENCE."""
    return f"{kind} {', '.join(quoted(schema, name) for name in names)}"


def all_relations_of(kind: str, schema: str) -> str:
    """Return all relations of a schema; *kind* is TABLE or SEQUENCE."""
    return f"ALL {kind}S IN SCHEMA {quoted(schema)}"


def default_privileges(creator: str, schema: str, action: str) -> str:
    """Change the privileges on what *creator* will create in the schema."""
    role = quoted(creator)
    return (
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {role} IN SCHEMA {quoted(schema)} {action};"
    )


def grant_default(privileges: Iterable[str], kind: str, role: str) -> str:
    """Return the action of `default_privileges` that grants *privileges*."""
    return f"GRANT {', '.join(privileges)} ON {kind}S TO {quoted(role)}"


def change_owner(kind: str, identity: str, owner: str) -> str:
    """Change the owner of an object; *identity* is quoted, with its schema."""
    return f"ALTER {kind} {identity} OWNER TO {quoted(owner)};"


def reassign_owned(old: str, new: str) -> str:
    """Change the owner of everything that *old* owns in the database."""
    return f"REASSIGN OWNED BY {quoted(old)} TO {quoted(new)};"


def set_read_only(role: str) -> str:
    """Make transactions of the role read-only, unless they say otherwise."""
    return f"ALTER ROLE {quoted(role)} SET default_transaction_read_only = on;"


def reset_read_only(role: str) -> str:
    """Undo `set_read_only`."""
    return f"ALTER ROLE {quoted(role)} RESET default_transaction_read_only;"


def revoke(what: str, role: str) -> str:
    """Revoke a privilege or a membership; without the semicolon."""
    return f"REVOKE {what} FROM {quoted(role)}"


def switch_to(role: str) -> str:
    """Make *role* the current role of the session."""
    return f"SET ROLE {quoted(role)};"
