"""
The initial content of a new project's PostgreSQL: roles, database and extension.

``databricks_auth`` has no control file here. A row in pg_extension reduces ``CREATE
EXTENSION IF NOT EXISTS`` to a notice, and the emulator defines the function.
"""

from django_lakebase.local.state.model import DATABASE, WorkspaceState

from .admin_connection import AdminConnection, quote_identifier, quote_literal
from .server import SUPERUSER
from .sql import IDENTITY_LABEL

EXTENSION = f"""
INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable,
                          extversion)
VALUES (90001, 'databricks_auth', {quote_literal(SUPERUSER)}::regrole,
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
                   '{IDENTITY_LABEL}' || upper(identity_type));
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


SUPERUSER_GROUP = """
CREATE ROLE databricks_superuser NOLOGIN;
GRANT pg_read_all_data, pg_write_all_data, pg_monitor TO databricks_superuser;
"""


def _create_role_statements(role: str, identity_type: str, attributes: str = "") -> str:
    name, comment = (
        quote_identifier(role),
        quote_literal(IDENTITY_LABEL + identity_type),
    )
    return f"CREATE ROLE {name} LOGIN {attributes};COMMENT ON ROLE {name} IS {comment};"


def _create_owner_statements(owner: str) -> str:
    """Return the statements that create the role of a project's owner."""
    identity_type = "USER" if "@" in owner else "SERVICE_PRINCIPAL"
    rights = "CREATEDB CREATEROLE BYPASSRLS IN ROLE databricks_superuser"
    return _create_role_statements(owner, identity_type, rights)


def _default_project_statements(state: WorkspaceState) -> str:
    owner, principal = quote_identifier(state.owner), quote_identifier(state.client_id)
    native = quote_identifier(state.native_user)
    return f"""
{_create_role_statements(state.client_id, "SERVICE_PRINCIPAL")}
GRANT {principal} TO {owner} WITH ADMIN OPTION;
CREATE ROLE {native} LOGIN PASSWORD {quote_literal(state.native_password)};
"""


def grant_statements(grants: str, role: str) -> str:
    """Return the statements that give *role* its *grants*: default, guide or app."""
    database, grantee = quote_identifier(DATABASE), quote_identifier(role)
    if grants == "app":
        return f"GRANT CONNECT, CREATE ON DATABASE {database} TO {grantee};"
    if grants == "guide":
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


async def provision_project(admin: AdminConnection, owner: str) -> bool:
    """Create a project's initial content; return False if its database exists."""
    name = quote_literal(DATABASE)
    if await admin.query(f"SELECT 1 FROM pg_database WHERE datname = {name}"):
        return False
    await admin.query(SUPERUSER_GROUP + _create_owner_statements(owner))
    for existing in ("template1", "postgres"):
        await admin.query_in(existing, EXTENSION)
    database, role = quote_identifier(DATABASE), quote_identifier(owner)
    await admin.query(f"CREATE DATABASE {database} OWNER {role}")
    return True


async def provision_default_project(
    admin: AdminConnection, state: WorkspaceState, grants: str
) -> None:
    """Create the identities of the default project, and grant their privileges."""
    await admin.query(_default_project_statements(state))
    for role in (state.client_id, state.native_user):
        await admin.query_in(DATABASE, grant_statements(grants, role))
