"""
The initial content of a new project's PostgreSQL: roles, database and extension.

``databricks_auth`` has no control file here. A row in pg_extension reduces ``CREATE
EXTENSION IF NOT EXISTS`` to a notice, and the emulator defines the function.
"""

from typing import LiteralString

from psycopg.sql import Identifier, Literal

from django_lakebase.local.state.model import DATABASE, WorkspaceState

from . import sql
from .admin_connection import AdminConnection
from .server import SUPERUSER

_EXTENSION = """
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable,
                          extversion)
VALUES (90001, 'databricks_auth', {superuser}::regrole,
        'public'::regnamespace, false, '1.0');
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
                   {label} || upper(identity_type));
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
_SUPERUSER_GROUP = """
CREATE ROLE databricks_superuser NOLOGIN;
GRANT pg_read_all_data, pg_write_all_data, pg_monitor TO databricks_superuser;
"""
_GRANTS = {
    "default": """
GRANT CONNECT, CREATE ON DATABASE {database} TO {role};
GRANT USAGE, CREATE ON SCHEMA public TO {role};
ALTER ROLE {role} CREATEDB;
""",
    "guide": """
GRANT CONNECT ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
""",
    "app": "GRANT CONNECT, CREATE ON DATABASE {database} TO {role};",
}
_PUBLIC_GRANTS = """
GRANT CONNECT ON DATABASE {database} TO PUBLIC;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""
_REVOKE = {
    "connect": "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC, {role}",
    "schema": "REVOKE ALL ON SCHEMA public FROM PUBLIC, {role}",
}


async def grant(admin: AdminConnection, role: str, grants: str) -> None:
    """Give *role* its privileges; *grants* is default, guide or app."""
    await _execute_for_role(admin, role, _GRANTS[grants])


async def revoke(admin: AdminConnection, role: str, privilege: str) -> None:
    """Revoke *privilege*, which is connect or schema, from *role* and everyone."""
    await _execute_for_role(admin, role, _REVOKE[privilege])


async def restore_grants(admin: AdminConnection, role: str, grants: str) -> None:
    """Undo `revoke`; *grants* are those of *role*."""
    await _execute_for_role(admin, role, _PUBLIC_GRANTS + _GRANTS[grants])


async def _execute_for_role(
    admin: AdminConnection, role: str, template: LiteralString
) -> None:
    """Run *template*, which may name the role and the database, in that database."""
    names = {"role": Identifier(role), "database": Identifier(DATABASE)}
    await admin.execute_in(DATABASE, template, **names)


async def provision_project(admin: AdminConnection, owner: str) -> bool:
    """Create a project's initial content; return False if its database exists."""
    if any(database.name == DATABASE for database in await sql.fetch_databases(admin)):
        return False
    await admin.execute(_SUPERUSER_GROUP)
    identity_type = "USER" if "@" in owner else "SERVICE_PRINCIPAL"
    await sql.create_role(admin, owner, identity_type, can_log_in=True)
    attributes = dict.fromkeys(("createdb", "createrole", "bypassrls"), True)
    await sql.alter_role(admin, owner, attributes, is_superuser=True)
    superuser, label = Literal(SUPERUSER), Literal(sql.IDENTITY_LABEL)
    for existing in ("template1", "postgres"):
        await admin.execute_in(existing, _EXTENSION, superuser=superuser, label=label)
    await sql.create_database(admin, DATABASE, owner)
    return True


async def provision_default_project(
    admin: AdminConnection, state: WorkspaceState, grants: str
) -> None:
    """Create the identities of the default project, and grant their privileges."""
    principal, native = state.client_id, state.native_user
    await sql.create_role(admin, principal, "SERVICE_PRINCIPAL", can_log_in=True)
    await admin.execute(
        "GRANT {} TO {} WITH ADMIN OPTION",
        Identifier(principal),
        Identifier(state.owner),
    )
    await admin.execute(
        "CREATE ROLE {} LOGIN PASSWORD {}",
        Identifier(native),
        Literal(state.native_password),
    )
    for role in (principal, native):
        await grant(admin, role, grants)
