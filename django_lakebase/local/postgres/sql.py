"""
The SQL that the emulator runs over its admin connection.

PostgreSQL itself stores the roles, databases, sessions and settings. A role accepts
tokens if its comment has the prefix IDENTITY_LABEL. The service uses a security label
instead, which needs a C library.
"""

import secrets
from dataclasses import dataclass

from .admin_connection import AdminConnection, quote_identifier, quote_literal
from .server import SUPERUSER

# The prefix of the comment on a role that accepts tokens. The identity type follows.
IDENTITY_LABEL = "databricks_auth: "
_IS_USER_SESSION = (
    f"backend_type = 'client backend' AND usename <> {quote_literal(SUPERUSER)}"
)


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
class Database:
    """A database and the role that owns it."""

    name: str
    owner: str


async def fetch_roles(admin: AdminConnection) -> list[Role]:
    """Return all roles except the roles of PostgreSQL and the service."""
    rows = await admin.query(
        "SELECT rolname, shobj_description(oid, 'pg_authid'), rolcanlogin, "
        "rolpassword IS NOT NULL, rolcreatedb, rolcreaterole, rolbypassrls, "
        "pg_has_role(oid, 'databricks_superuser', 'member') FROM pg_authid "
        f"WHERE rolname !~ '^pg_' AND rolname NOT IN ({quote_literal(SUPERUSER)}, "
        "'databricks_superuser') ORDER BY rolname"
    )
    return [
        Role(
            name=row[0] or "",
            identity_type=parse_identity_type(row[1]),
            can_log_in=row[2] == "t",
            has_password=row[3] == "t",
            createdb=row[4] == "t",
            createrole=row[5] == "t",
            bypassrls=row[6] == "t",
            is_superuser=row[7] == "t",
        )
        for row in rows
    ]


async def fetch_databases(admin: AdminConnection) -> list[Database]:
    """Return all databases except PostgreSQL's default databases."""
    rows = await admin.query(
        "SELECT datname, pg_get_userbyid(datdba) FROM pg_database "
        "WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY datname"
    )
    return [Database(name=row[0] or "", owner=row[1] or "") for row in rows]


async def fetch_size(admin: AdminConnection) -> int:
    """Return the total size of all databases in bytes."""
    rows = await admin.query("SELECT sum(pg_database_size(oid)) FROM pg_database")
    return int(rows[0][0] or 0)


async def fetch_lsn(admin: AdminConnection) -> str:
    """Return the current position in the WAL."""
    rows = await admin.query("SELECT pg_current_wal_lsn()")
    return rows[0][0] or ""


def login_query(user: str) -> str:
    """Return a query for a role's comment, and for whether it has a password."""
    return (
        "SELECT shobj_description(oid, 'pg_authid'), rolpassword IS NOT NULL "
        f"FROM pg_authid WHERE rolname = {quote_literal(user)} AND rolcanlogin"
    )


def label_statement(role: str, identity_type: str | None) -> str:
    """Return a statement that labels *role* with *identity_type*; None: no label."""
    text = (
        "NULL"
        if identity_type is None
        else quote_literal(IDENTITY_LABEL + identity_type)
    )
    return f"COMMENT ON ROLE {quote_identifier(role)} IS {text};"


def parse_identity_type(comment: str | None) -> str:
    """Return the identity type in a role's *comment*, empty without one."""
    text = comment or ""
    return text.removeprefix(IDENTITY_LABEL) if text.startswith(IDENTITY_LABEL) else ""


async def create_role(
    admin: AdminConnection, role: str, identity_type: str, *, can_log_in: bool
) -> None:
    """Create a role, which accepts tokens if *identity_type* is not empty."""
    right = "LOGIN" if can_log_in else "NOLOGIN"
    await admin.query(f"CREATE ROLE {quote_identifier(role)} {right}")
    if identity_type:
        await admin.query(label_statement(role, identity_type))


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
    words = [k.upper() if on else f"NO{k.upper()}" for k, on in attributes.items()]
    if words:
        await admin.query(f"ALTER ROLE {quote_identifier(role)} {' '.join(words)}")
    if is_superuser is not None:
        verb, side = ("GRANT", "TO") if is_superuser else ("REVOKE", "FROM")
        await admin.query(
            f"{verb} databricks_superuser {side} {quote_identifier(role)}"
        )


async def reset_password(admin: AdminConnection, role: str) -> str:
    """Set a new random password for a role, and return the password."""
    password = secrets.token_urlsafe(18)
    await admin.query(
        f"ALTER ROLE {quote_identifier(role)} PASSWORD {quote_literal(password)}"
    )
    return password


async def drop_role(admin: AdminConnection, role: str, new_owner: str) -> None:
    """
    Drop a role, and give the objects that it owns to *new_owner*.

    If *new_owner* is empty, the role must not own any objects.
    """
    old, new = quote_identifier(role), quote_identifier(new_owner)
    for database in await fetch_databases(admin):
        if new_owner:
            reassign = f"REASSIGN OWNED BY {old} TO {new};"
            await admin.query_in(database.name, f"{reassign} DROP OWNED BY {old}")
    await admin.query(f"DROP ROLE {old}")


async def create_database(admin: AdminConnection, name: str, owner: str) -> None:
    """Create a database."""
    await admin.query(
        f"CREATE DATABASE {quote_identifier(name)} OWNER {quote_identifier(owner)}"
    )


async def alter_database(
    admin: AdminConnection, old: str, name: str, owner: str
) -> None:
    """Rename a database, and change its owner."""
    if old != name:
        await admin.query(
            f"ALTER DATABASE {quote_identifier(old)} RENAME TO {quote_identifier(name)}"
        )
    await admin.query(
        f"ALTER DATABASE {quote_identifier(name)} OWNER TO {quote_identifier(owner)}"
    )


async def drop_database(admin: AdminConnection, name: str) -> None:
    """Drop a database, and end its sessions."""
    await admin.query(f"DROP DATABASE {quote_identifier(name)} WITH (FORCE)")


async def set_settings(admin: AdminConnection, settings: dict[str, str]) -> None:
    """Replace all changed server settings with *settings*."""
    await admin.query("ALTER SYSTEM RESET ALL")
    for name, value in settings.items():
        await admin.query(
            f"ALTER SYSTEM SET {quote_identifier(name)} = {quote_literal(value)}"
        )
    await admin.query("SELECT pg_reload_conf()")


async def end_sessions(admin: AdminConnection) -> None:
    """End all user sessions, as an administrator does."""
    await admin.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE {_IS_USER_SESSION}"
    )


async def fetch_last_activity(admin: AdminConnection) -> float | None:
    """
    Return the time of the last activity of a user session, in seconds since 1970.

    A running statement counts as activity now. Returns None if there is no session.
    """
    rows = await admin.query(
        "SELECT max(extract(epoch FROM CASE state WHEN 'active' THEN now() "
        "ELSE greatest(state_change, backend_start) END)) FROM pg_stat_activity "
        f"WHERE {_IS_USER_SESSION}"
    )
    value = rows[0][0]
    return None if value is None else float(value)
