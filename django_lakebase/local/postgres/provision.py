"""
The initial content of a new project's PostgreSQL: roles, database and extension.

``databricks_auth`` has no control file here. A row in pg_extension reduces ``CREATE
EXTENSION IF NOT EXISTS`` to a notice, and the emulator defines the function.
"""

from typing import LiteralString

from psycopg.rows import scalar_row
from psycopg.sql import SQL, Composable, Identifier, Literal

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
    IF coalesce(upper(identity_type), '') NOT IN
            ('USER', 'SERVICE_PRINCIPAL', 'GROUP') THEN
        RAISE EXCEPTION 'invalid identity type "%"', identity_type
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT (SELECT rolcreaterole OR rolsuper FROM pg_roles
            WHERE rolname = session_user) THEN
        RAISE EXCEPTION 'permission denied to create role'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    EXECUTE format('CREATE ROLE %I LOGIN', identity);
    INSERT INTO pg_shseclabel (objoid, classoid, provider, label)
    SELECT oid, 'pg_authid'::regclass, 'databricks_auth', format('id=%s,type=%s',
        ('x' || left(encode(sha256(convert_to(identity, 'UTF8')), 'hex'), 12))
        ::bit(48)::bigint, upper(identity_type))
    FROM pg_authid WHERE rolname = identity::name;
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
GRANT ALL ON SCHEMA public TO databricks_superuser WITH GRANT OPTION;
"""
_SUPERUSER_GROUP = """
CREATE ROLE databricks_superuser NOLOGIN;
GRANT pg_read_all_data, pg_write_all_data, pg_monitor TO databricks_superuser;
"""
# The owner grants the privileges, so that the owner can also revoke them.
_GRANTS = {
    "default": """
ALTER ROLE {role} CREATEDB;
SET LOCAL ROLE {owner};
GRANT CONNECT, CREATE ON DATABASE {database} TO {role};
GRANT USAGE, CREATE ON SCHEMA public TO {role};
""",
    "guide": """
SET LOCAL ROLE {owner};
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
# REVOKE removes only what its user has granted, and PostgreSQL records privileges that
# a member of databricks_superuser has granted as granted by that role.
_RESET_SCHEMA = """
REVOKE ALL ON SCHEMA public FROM {role} CASCADE;
SET LOCAL ROLE databricks_superuser;
REVOKE ALL ON SCHEMA public FROM {role} CASCADE;
"""
_REVOKE = {
    "connect": "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC, {role}",
    "schema": f"REVOKE ALL ON SCHEMA public FROM PUBLIC; {_RESET_SCHEMA}",
}


async def grant(admin: AdminConnection, role: str, grants: str, owner: str) -> None:
    """Give *role* its privileges; *grants* is default, guide or app."""
    await _execute_for_role(admin, role, _GRANTS[grants], owner=Identifier(owner))


async def revoke(admin: AdminConnection, role: str, privilege: str) -> None:
    """Revoke *privilege*, which is connect or schema, from *role* and everyone."""
    await _execute_for_role(admin, role, _REVOKE[privilege])


async def restore_grants(
    admin: AdminConnection, role: str, grants: str, owner: str
) -> None:
    """Undo `revoke`; *grants* are those of *role*."""
    template = _PUBLIC_GRANTS + _GRANTS[grants]
    await _execute_for_role(admin, role, template, owner=Identifier(owner))


async def reset_schema(admin: AdminConnection, role: str) -> list[str]:
    """Revoke the privileges of *role* on the schema public, and return their names."""
    query = SQL(
        "SELECT DISTINCT privilege_type FROM pg_namespace, aclexplode(nspacl) "
        "WHERE nspname = 'public' AND grantee = (SELECT oid FROM pg_authid "
        "WHERE rolname = {role})"
    ).format(role=Literal(role))
    privileges: list[str] = await admin.fetch_in(DATABASE, scalar_row, query)
    await _execute_for_role(admin, role, _RESET_SCHEMA)
    return privileges


async def restore_schema(
    admin: AdminConnection, role: str, privileges: list[str], owner: str
) -> None:
    """Let *owner* grant *role* the *privileges* that `reset_schema` returned."""
    if privileges:
        await _execute_for_role(
            admin,
            role,
            "SET LOCAL ROLE {owner}; GRANT {privileges} ON SCHEMA public TO {role}",
            owner=Identifier(owner),
            privileges=SQL(", ").join(SQL(privilege) for privilege in privileges),
        )


async def _execute_for_role(
    admin: AdminConnection, role: str, template: LiteralString, **names: Composable
) -> None:
    """Run *template*, which may name the role and the database, in that database."""
    names |= {"role": Identifier(role), "database": Identifier(DATABASE)}
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
    for existing in ("template1", "postgres"):
        await admin.execute_in(existing, _EXTENSION, superuser=Literal(SUPERUSER))
    await sql.create_database(admin, DATABASE, owner)
    return True


async def provision_default_project(
    admin: AdminConnection, state: WorkspaceState, grants: str
) -> None:
    """Create the identities of the default project, and grant their privileges."""
    principal, native = state.client_id, state.native_user
    await sql.create_role(admin, principal, "SERVICE_PRINCIPAL", can_log_in=True)
    if grants != "app":
        # The owner has called databricks_create_role. The platform creates the role of
        # an app, which then has no members.
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
        await grant(admin, role, grants, state.owner)
