"""
What a new project's Postgres holds: its roles, its database, the extension.

``databricks_auth`` has no control file here: a row of pg_extension makes ``CREATE
EXTENSION IF NOT EXISTS`` a notice, and the function is our own. A role takes tokens
if its comment says so; the service uses a security label, which needs a C library.
"""

from pathlib import Path

from .backdoor import Backdoor, named, quoted
from .estate import DATABASE, Estate
from .postgres import SUPERUSER

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


def _roles(estate: Estate) -> str:
    owner, principal = named(estate.owner), named(estate.client_id)
    native = named(estate.native_user)
    return f"""
CREATE ROLE databricks_superuser NOLOGIN;
GRANT pg_read_all_data, pg_write_all_data, pg_monitor TO databricks_superuser;
CREATE ROLE {owner} LOGIN CREATEDB CREATEROLE BYPASSRLS IN ROLE databricks_superuser;
COMMENT ON ROLE {owner} IS '{LABEL}USER';
CREATE ROLE {principal} LOGIN;
COMMENT ON ROLE {principal} IS '{LABEL}SERVICE_PRINCIPAL';
GRANT {principal} TO {owner} WITH ADMIN OPTION;
CREATE ROLE {native} LOGIN PASSWORD {quoted(estate.native_password)};
"""


def _grants(which: str, role: str) -> str:
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


async def furnish(socket: Path, estate: Estate, grants: str) -> None:
    """Make the project's roles and database, unless *socket*'s server has them."""
    door = await Backdoor.open(socket)
    try:
        known = quoted(DATABASE)
        made = f"SELECT 1 FROM pg_database WHERE datname = {known}"
        if await door.query(made):
            return
        await door.query(_roles(estate))
        for database in ("template1", "postgres"):
            await _run(socket, database, EXTENSION)
        owner = named(estate.owner)
        await door.query(f"CREATE DATABASE {named(DATABASE)} OWNER {owner}")
        for role in (estate.client_id, estate.native_user):
            await _run(socket, DATABASE, _grants(grants, role))
    finally:
        door.close()


async def _run(socket: Path, database: str, sql: str) -> None:
    door = await Backdoor.open(socket, database)
    await door.query(sql)
    door.close()


def role_query(user: str) -> str:
    """Return the query for how *user* may log in: its label, and a password at all."""
    return (
        "SELECT shobj_description(oid, 'pg_authid'), rolpassword IS NOT NULL "
        f"FROM pg_authid WHERE rolname = {quoted(user)} AND rolcanlogin"
    )


def takes_tokens(comment: str | None) -> bool:
    """Whether a role with this *comment* logs in with tokens."""
    return (comment or "").startswith(LABEL)
