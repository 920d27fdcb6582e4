"""
The SQL that the emulator runs over its admin connection.

PostgreSQL itself stores the roles, databases, sessions and settings. A role accepts
tokens if it has a security label of the provider ``databricks_auth``, as it does on the
service. The statement SECURITY LABEL requires the provider's C library, so the emulator
writes the label to the catalog.
"""

import secrets
from dataclasses import dataclass
from typing import LiteralString

from psycopg.rows import class_row, scalar_row
from psycopg.sql import SQL, Identifier, Literal

from django_lakebase.local.state.model import get_scim_id

from .admin_connection import AdminConnection
from .server import SUPERUSER

_IS_LABEL_OF_ROLE = SQL(
    "classoid = 'pg_authid'::regclass AND provider = 'databricks_auth' AND objoid"
)
# In data directories of earlier versions, a comment contains the identity type.
_IDENTITY_TYPE = SQL(
    "coalesce((SELECT substring(label FROM 'type=([A-Z_]+)') FROM pg_shseclabel "
    "WHERE {is_label} = pg_authid.oid), "
    "substring(shobj_description(oid, 'pg_authid') FROM '^databricks_auth: (.*)'), '')"
).format(is_label=_IS_LABEL_OF_ROLE)
_IS_USER_SESSION = SQL(
    "backend_type = 'client backend' AND usename <> {superuser}"
).format(superuser=Literal(SUPERUSER))

_SELECT_ROLES = SQL(
    "SELECT rolname AS name, {identity_type} AS identity_type, "
    "rolcanlogin AS can_log_in, rolpassword IS NOT NULL AS has_password, "
    "rolcreatedb AS createdb, rolcreaterole AS createrole, "
    "rolbypassrls AS bypassrls, "
    "pg_has_role(oid, 'databricks_superuser', 'member') AS is_superuser "
    "FROM pg_authid WHERE rolname !~ '^pg_' "
    "AND rolname NOT IN ({superuser}, 'databricks_superuser') ORDER BY rolname"
).format(identity_type=_IDENTITY_TYPE, superuser=Literal(SUPERUSER))
_SELECT_LOGIN_ROLE = SQL(
    "SELECT {identity_type} AS identity_type, rolpassword IS NOT NULL AS has_password "
    "FROM pg_authid WHERE rolname = %s AND rolcanlogin"
).format(identity_type=_IDENTITY_TYPE)

# DROP OWNED revokes only what its user has granted, and the grantor of privileges on a
# schema or database may be databricks_superuser.
_DROP_OWNED: LiteralString = """
REASSIGN OWNED BY {old} TO {new};
DROP OWNED BY {old};
DO $do$
DECLARE item record;
BEGIN
    FOR item IN
        SELECT grantor::regrole, format('SCHEMA %I', nspname) AS name
        FROM pg_namespace, aclexplode(nspacl) WHERE grantee = {old_name}::regrole
        UNION
        SELECT grantor::regrole, format('DATABASE %I', datname)
        FROM pg_database, aclexplode(datacl) WHERE grantee = {old_name}::regrole
    LOOP
        EXECUTE format('SET LOCAL ROLE %s', item.grantor);
        EXECUTE format('REVOKE ALL ON %s FROM %s CASCADE', item.name, {old_name});
    END LOOP;
END
$do$;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role in PostgreSQL; *identity_type* is empty for a native role."""

    name: str
    identity_type: str
    can_log_in: bool
    has_password: bool
    createdb: bool
    createrole: bool
    bypassrls: bool
    is_superuser: bool

    @property
    def auth_method(self) -> str:
        """The login method, as a value of the API."""
        if not self.can_log_in:
            return "NO_LOGIN"
        if self.identity_type:
            return "LAKEBASE_OAUTH_V1"
        return "PG_PASSWORD_SCRAM_SHA_256"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginRole:
    """What a login needs to know about a role that can log in."""

    identity_type: str
    has_password: bool

    @property
    def is_native(self) -> bool:
        """Whether the role logs in with a password, not with a token."""
        return self.has_password and not self.identity_type


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database and the role that owns it."""

    name: str
    owner: str


async def fetch_roles(admin: AdminConnection) -> list[Role]:
    """Return all roles except the roles of PostgreSQL and the service."""
    return await admin.fetch(class_row(Role), _SELECT_ROLES)


async def fetch_login_role(admin: AdminConnection, name: str) -> LoginRole | None:
    """Return the role *name*, or None if there is none that can log in."""
    rows = await admin.fetch(class_row(LoginRole), _SELECT_LOGIN_ROLE, (name,))
    return rows[0] if rows else None


async def fetch_databases(admin: AdminConnection) -> list[Database]:
    """Return all databases except PostgreSQL's default databases."""
    return await admin.fetch(
        class_row(Database),
        "SELECT datname AS name, pg_get_userbyid(datdba) AS owner FROM pg_database "
        "WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY datname",
    )


async def fetch_size(admin: AdminConnection) -> int:
    """Return the total size of all databases in bytes."""
    query = "SELECT sum(pg_database_size(oid))::bigint FROM pg_database"
    [size] = await admin.fetch(scalar_row, query)
    return int(size)


async def fetch_lsn(admin: AdminConnection) -> str:
    """Return the current position in the WAL."""
    [lsn] = await admin.fetch(scalar_row, "SELECT pg_current_wal_lsn()")
    return str(lsn)


async def set_identity_type(
    admin: AdminConnection, role: str, identity_type: str | None
) -> None:
    """Label *role* with *identity_type*; None removes the label."""
    await admin.execute(
        "DELETE FROM pg_shseclabel WHERE {is_label} = (SELECT oid FROM pg_authid "
        "WHERE rolname = {role}); "
        "DELETE FROM pg_shdescription WHERE classoid = 'pg_authid'::regclass "
        "AND objoid = (SELECT oid FROM pg_authid WHERE rolname = {role}) "
        "AND starts_with(description, 'databricks_auth: ')",
        is_label=_IS_LABEL_OF_ROLE,
        role=Literal(role),
    )
    if identity_type is not None:
        await admin.execute(
            "INSERT INTO pg_shseclabel (objoid, classoid, provider, label) "
            "SELECT oid, 'pg_authid'::regclass, 'databricks_auth', {label} "
            "FROM pg_authid WHERE rolname = {role}",
            label=Literal(f"id={get_scim_id(role)},type={identity_type}"),
            role=Literal(role),
        )


async def create_role(
    admin: AdminConnection, role: str, identity_type: str, *, can_log_in: bool
) -> None:
    """Create a role, which accepts tokens if *identity_type* is not empty."""
    right = SQL("LOGIN" if can_log_in else "NOLOGIN")
    await admin.execute("CREATE ROLE {} {}", Identifier(role), right)
    if identity_type:
        await set_identity_type(admin, role, identity_type)


async def alter_role(
    admin: AdminConnection,
    role: str,
    attributes: dict[str, bool],
    is_superuser: bool | None,
) -> None:
    """
    Change the *attributes* of a role, and its membership in databricks_superuser.

    The membership stays unchanged if *is_superuser* is None.
    """
    name = Identifier(role)
    words = [k.upper() if on else f"NO{k.upper()}" for k, on in attributes.items()]
    if words:
        await admin.execute("ALTER ROLE {} {}", name, SQL(" ".join(words)))
    if is_superuser:
        await admin.execute("GRANT databricks_superuser TO {}", name)
    elif is_superuser is not None:
        await admin.execute("REVOKE databricks_superuser FROM {}", name)


async def rename_role(admin: AdminConnection, old: str, new: str) -> None:
    """Rename a role."""
    await admin.execute("ALTER ROLE {} RENAME TO {}", Identifier(old), Identifier(new))


async def reset_password(admin: AdminConnection, role: str) -> str:
    """Set a new random password for a role, and return the password."""
    password = secrets.token_urlsafe(18)
    statement = "ALTER ROLE {} PASSWORD {}"
    await admin.execute(statement, Identifier(role), Literal(password))
    return password


async def drop_role(admin: AdminConnection, role: str, new_owner: str) -> None:
    """
    Drop a role, and give the objects that it owns to *new_owner*.

    If *new_owner* is empty, the role must not own any objects.
    """
    old, new = Identifier(role), Identifier(new_owner)
    if new_owner:
        names = {"old": old, "new": new, "old_name": Literal(old.as_string(None))}
        for database in await fetch_databases(admin):
            await admin.execute_in(database.name, _DROP_OWNED, **names)
    await admin.execute("DROP ROLE {}", old)


async def create_database(admin: AdminConnection, name: str, owner: str) -> None:
    """Create a database, on which databricks_superuser has all privileges."""
    statement = "CREATE DATABASE {} OWNER {}"
    await admin.execute(statement, Identifier(name), Identifier(owner))
    await admin.execute(
        "GRANT ALL ON DATABASE {} TO databricks_superuser WITH GRANT OPTION",
        Identifier(name),
    )


async def alter_database(
    admin: AdminConnection, old: str, name: str, owner: str
) -> None:
    """Rename a database, and change its owner."""
    if old != name:
        rename = "ALTER DATABASE {} RENAME TO {}"
        await admin.execute(rename, Identifier(old), Identifier(name))
    change_owner = "ALTER DATABASE {} OWNER TO {}"
    await admin.execute(change_owner, Identifier(name), Identifier(owner))


async def drop_database(admin: AdminConnection, name: str) -> None:
    """Drop a database, and end its sessions."""
    await admin.execute("DROP DATABASE {} WITH (FORCE)", Identifier(name))


async def set_settings(admin: AdminConnection, settings: dict[str, str]) -> None:
    """Replace all changed server settings with *settings*."""
    await admin.execute("ALTER SYSTEM RESET ALL")
    for name, value in settings.items():
        await admin.execute(
            "ALTER SYSTEM SET {} = {}", Identifier(name), Literal(value)
        )
    await admin.execute("SELECT pg_reload_conf()")


async def end_sessions(admin: AdminConnection) -> None:
    """End all user sessions, as an administrator does."""
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {}",
        _IS_USER_SESSION,
    )


async def fetch_last_activity(admin: AdminConnection) -> float | None:
    """
    Return the time of the last activity of a user session, in seconds since 1970.

    A running statement counts as activity now. Returns None if there is no session.
    """
    query = SQL(
        "SELECT max(extract(epoch FROM CASE state WHEN 'active' THEN now() "
        "ELSE greatest(state_change, backend_start) END))::float8 "
        "FROM pg_stat_activity WHERE {}"
    )
    [moment] = await admin.fetch(scalar_row, query.format(_IS_USER_SESSION))
    return None if moment is None else float(moment)
