"""
What a new project's Postgres holds: its roles, its database, the extension.

``databricks_auth`` has no control file here: a row of pg_extension makes ``CREATE
EXTENSION IF NOT EXISTS`` a notice, and the function is our own. A role takes tokens
if its comment says so; the service uses a security label, which needs a C library.
"""

import secrets
from dataclasses import dataclass

from django_lakebase.local.state.model import DATABASE, Estate

from .admin import Backdoor, named, quoted
from .server import SUPERUSER

# The mark of a role that takes tokens, and of which kind of identity it is.
LABEL = "databricks_auth: "

EXTENSION = f"""
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable,
                          extversion)
VALUES (90001, 'databricks_auth', {quoted(SUPERUSER)}::regrole, 'public'::regnamespace,
        false, '1.0');
CREATE FUNCTION public.databricks_create_role(identity text, identity_type text)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF upper(identity_type) NOT IN ('USER', 'SERVICE_PRINCIPAL', 'GROUP') THEN
        RAISE EXCEPTION 'invalid identity type "%"', identity_type
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT (SELECT rolcreaterole OR rolsuper FROM pg_roles
            WHERE rolname = session_user) THEN
        RAISE EXCEPTION 'permission denied to create role'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN', identity);
    EXECUTE format('COMMENT ON ROLE %I IS %L', identity,
                   '{LABEL}' || upper(identity_type));
    EXECUTE format('GRANT %I TO %I WITH ADMIN OPTION', identity, session_user);
    RETURN identity;
END
$$;
-- A member of the extension, so that pg_dump leaves it out.
INSERT INTO pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid,
                       deptype)
VALUES ('pg_proc'::regclass,
        'public.databricks_create_role(text, text)'::regprocedure, 0,
        'pg_extension'::regclass, 90001, 0, 'e');
"""


SUPERUSERS = """
CREATE ROLE databricks_superuser NOLOGIN;
GRANT pg_read_all_data, pg_write_all_data, pg_monitor TO databricks_superuser;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role as PostgreSQL knows it; *identity_type* is empty for a native one."""

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
        """How it logs in, as the API says it."""
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


def _identity(role: str, kind: str, attributes: str = "") -> str:
    return (
        f"CREATE ROLE {named(role)} LOGIN {attributes};"
        f"COMMENT ON ROLE {named(role)} IS {quoted(LABEL + kind)};"
    )


def owner_role(owner: str) -> str:
    """Return what makes the role of a project's owner."""
    kind = "USER" if "@" in owner else "SERVICE_PRINCIPAL"
    rights = "CREATEDB CREATEROLE BYPASSRLS IN ROLE databricks_superuser"
    return _identity(owner, kind, rights)


def _home_roles(estate: Estate) -> str:
    owner, principal = named(estate.owner), named(estate.client_id)
    native = named(estate.native_user)
    return f"""
{_identity(estate.client_id, "SERVICE_PRINCIPAL")}
GRANT {principal} TO {owner} WITH ADMIN OPTION;
CREATE ROLE {native} LOGIN PASSWORD {quoted(estate.native_password)};
"""


def grants(which: str, role: str) -> str:
    """Return the grants of *role*: default, guide or app."""
    database, grantee = named(DATABASE), named(role)
    if which == "app":
        return f"GRANT CONNECT, CREATE ON DATABASE {database} TO {grantee};"
    if which == "guide":
        return f"""
GRANT CONNECT ON DATABASE {database} TO {grantee};
GRANT USAGE ON SCHEMA public TO {grantee};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {grantee};
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {grantee};
"""
    return f"""
GRANT CONNECT, CREATE ON DATABASE {database} TO {grantee};
GRANT USAGE, CREATE ON SCHEMA public TO {grantee};
ALTER ROLE {grantee} CREATEDB;
"""


async def furnish(door: Backdoor, owner: str) -> bool:
    """Make what a project starts with; return whether there was nothing before."""
    known = quoted(DATABASE)
    if await door.query(f"SELECT 1 FROM pg_database WHERE datname = {known}"):
        return False
    await door.query(SUPERUSERS + owner_role(owner))
    for database in ("template1", "postgres"):
        await run_in(door, database, EXTENSION)
    await door.query(f"CREATE DATABASE {named(DATABASE)} OWNER {named(owner)}")
    return True


async def furnish_home(door: Backdoor, estate: Estate, which: str) -> None:
    """Make the identities of the first project, and their grants."""
    await door.query(_home_roles(estate))
    for role in (estate.client_id, estate.native_user):
        await run_in(door, DATABASE, grants(which, role))


async def run_in(door: Backdoor, database: str, sql: str) -> list[list[str | None]]:
    """Run *sql* in another *database* of the same server."""
    other = await Backdoor.open(door.socket, database)
    try:
        return await other.query(sql)
    finally:
        other.close()


async def roles(door: Backdoor) -> list[Role]:
    """Return the roles that are not the service's own."""
    rows = await door.query(
        "SELECT rolname, shobj_description(oid, 'pg_authid'), rolcanlogin, "
        "rolpassword IS NOT NULL, rolcreatedb, rolcreaterole, rolbypassrls, "
        "pg_has_role(oid, 'databricks_superuser', 'member') FROM pg_authid "
        f"WHERE rolname !~ '^pg_' AND rolname NOT IN ({quoted(SUPERUSER)}, "
        "'databricks_superuser') ORDER BY rolname"
    )
    return [
        Role(
            name=row[0] or "",
            identity_type=identity_type(row[1]),
            can_log_in=row[2] == "t",
            has_password=row[3] == "t",
            createdb=row[4] == "t",
            createrole=row[5] == "t",
            bypassrls=row[6] == "t",
            is_superuser=row[7] == "t",
        )
        for row in rows
    ]


async def databases(door: Backdoor) -> list[Database]:
    """Return the databases that are not PostgreSQL's own."""
    rows = await door.query(
        "SELECT datname, pg_get_userbyid(datdba) FROM pg_database "
        "WHERE NOT datistemplate AND datname <> 'postgres' ORDER BY datname"
    )
    return [Database(name=row[0] or "", owner=row[1] or "") for row in rows]


async def size(door: Backdoor) -> int:
    """Return the bytes of all databases."""
    rows = await door.query("SELECT sum(pg_database_size(oid)) FROM pg_database")
    return int(rows[0][0] or 0)


def role_query(user: str) -> str:
    """Return the query for how *user* may log in: its label, and a password at all."""
    return (
        "SELECT shobj_description(oid, 'pg_authid'), rolpassword IS NOT NULL "
        f"FROM pg_authid WHERE rolname = {quoted(user)} AND rolcanlogin"
    )


def label(role: str, kind: str | None) -> str:
    """Return what marks *role* as taking the tokens of a *kind*, or none."""
    text = "NULL" if kind is None else quoted(LABEL + kind)
    return f"COMMENT ON ROLE {named(role)} IS {text};"


def identity_type(comment: str | None) -> str:
    """Return of which kind of identity a role with this *comment* takes tokens."""
    text = comment or ""
    return text.removeprefix(LABEL) if text.startswith(LABEL) else ""


async def create_role(
    door: Backdoor, role: str, kind: str, *, can_log_in: bool
) -> None:
    """Make a role; one of a *kind* of identity takes tokens."""
    right = "LOGIN" if can_log_in else "NOLOGIN"
    await door.query(f"CREATE ROLE {named(role)} {right}")
    if kind:
        await door.query(label(role, kind))


async def change_role(
    door: Backdoor, role: str, attributes: dict[str, bool], is_superuser: bool | None
) -> None:
    """Give a role its *attributes*, and the membership unless that is None."""
    words = [k.upper() if on else f"NO{k.upper()}" for k, on in attributes.items()]
    if words:
        await door.query(f"ALTER ROLE {named(role)} {' '.join(words)}")
    if is_superuser is not None:
        verb, side = ("GRANT", "TO") if is_superuser else ("REVOKE", "FROM")
        await door.query(f"{verb} databricks_superuser {side} {named(role)}")


async def new_password(door: Backdoor, role: str) -> str:
    """Give a role a new password, and return it."""
    password = secrets.token_urlsafe(18)
    await door.query(f"ALTER ROLE {named(role)} PASSWORD {quoted(password)}")
    return password


async def drop_role(door: Backdoor, role: str, heir: str) -> None:
    """Drop a role; what it owns goes to *heir*, and without one it must own nothing."""
    for database in await databases(door):
        if heir:
            given = f"REASSIGN OWNED BY {named(role)} TO {named(heir)};"
            await run_in(door, database.name, f"{given} DROP OWNED BY {named(role)}")
    await door.query(f"DROP ROLE {named(role)}")


async def create_database(door: Backdoor, name: str, owner: str) -> None:
    """Make a database."""
    await door.query(f"CREATE DATABASE {named(name)} OWNER {named(owner)}")


async def change_database(door: Backdoor, old: str, name: str, owner: str) -> None:
    """Rename a database, and give it to *owner*."""
    if old != name:
        await door.query(f"ALTER DATABASE {named(old)} RENAME TO {named(name)}")
    await door.query(f"ALTER DATABASE {named(name)} OWNER TO {named(owner)}")


async def drop_database(door: Backdoor, name: str) -> None:
    """Drop a database, ending its sessions."""
    await door.query(f"DROP DATABASE {named(name)} WITH (FORCE)")


async def configure(door: Backdoor, settings: dict[str, str]) -> None:
    """Set the server's *settings*, and no others."""
    await door.query("ALTER SYSTEM RESET ALL")
    for name, value in settings.items():
        await door.query(f"ALTER SYSTEM SET {named(name)} = {quoted(value)}")
    await door.query("SELECT pg_reload_conf()")


async def end_sessions(door: Backdoor) -> None:
    """End all sessions but our own, as an administrator does."""
    await door.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        f"WHERE backend_type = 'client backend' AND usename <> {quoted(SUPERUSER)}"
    )


async def last_activity(door: Backdoor) -> float | None:
    """Return when a session last did something, now if one is at it, None for none."""
    rows = await door.query(
        "SELECT max(extract(epoch FROM CASE state WHEN 'active' THEN now() "
        "ELSE greatest(state_change, backend_start) END)) FROM pg_stat_activity "
        f"WHERE backend_type = 'client backend' AND usename <> {quoted(SUPERUSER)}"
    )
    value = rows[0][0]
    return None if value is None else float(value)
