"""
The initial content of a new project's PostgreSQL: roles, database and extension.

``databricks_auth`` has no control file here. A row in pg_extension reduces ``CREATE
EXTENSION IF NOT EXISTS`` to a notice, and the emulator defines the function.
"""

from psycopg.sql import SQL, Composed, Identifier, Literal

from django_lakebase.local.state.model import DATABASE, WorkspaceState

from .admin_connection import AdminConnection, Query
from .server import SUPERUSER
from .sql import IDENTITY_LABEL, create_database, fetch_databases, label_statement

EXTENSION = SQL(
    """
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
).format(superuser=Literal(SUPERUSER), label=Literal(IDENTITY_LABEL))


def _create_role(name: str, identity_type: str, rights: str = "") -> Composed:
    create = SQL("CREATE ROLE {} LOGIN {};").format(Identifier(name), SQL(rights))
    return create + label_statement(name, identity_type)


def _create_groups_and_owner(owner: str) -> Query:
    group = SQL(
        """
CREATE ROLE databricks_superuser NOLOGIN;
GRANT pg_read_all_data, pg_write_all_data, pg_monitor TO databricks_superuser;
"""
    )
    identity_type = "USER" if "@" in owner else "SERVICE_PRINCIPAL"
    rights = "CREATEDB CREATEROLE BYPASSRLS IN ROLE databricks_superuser"
    return group + _create_role(owner, identity_type, rights)


def _create_default_identities(state: WorkspaceState) -> Query:
    statements = SQL(
        """
GRANT {principal} TO {owner} WITH ADMIN OPTION;
CREATE ROLE {native} LOGIN PASSWORD {password};
"""
    ).format(
        principal=Identifier(state.client_id),
        owner=Identifier(state.owner),
        native=Identifier(state.native_user),
        password=Literal(state.native_password),
    )
    return _create_role(state.client_id, "SERVICE_PRINCIPAL") + statements


_GRANTS = {
    "default": SQL(
        """
GRANT CONNECT, CREATE ON DATABASE {database} TO {role};
GRANT USAGE, CREATE ON SCHEMA public TO {role};
ALTER ROLE {role} CREATEDB;
"""
    ),
    "guide": SQL(
        """
GRANT CONNECT ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
"""
    ),
    "app": SQL("GRANT CONNECT, CREATE ON DATABASE {database} TO {role};"),
}


async def grant(admin: AdminConnection, role: str, grants: str) -> None:
    """Give *role* its privileges; *grants* is default, guide or app."""
    await _execute_for_role(admin, role, _GRANTS[grants])


async def revoke(admin: AdminConnection, role: str, privilege: str) -> None:
    """Revoke the *privilege* connect or schema from *role* and from everyone."""
    statement = (
        SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC, {role}")
        if privilege == "schema"
        else SQL("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC, {role}")
    )
    await _execute_for_role(admin, role, statement)


async def restore_grants(admin: AdminConnection, role: str, grants: str) -> None:
    """Undo `revoke`; *grants* are those of *role*."""
    public = SQL(
        """
GRANT CONNECT ON DATABASE {database} TO PUBLIC;
GRANT USAGE ON SCHEMA public TO PUBLIC;
"""
    )
    await _execute_for_role(admin, role, public)
    await grant(admin, role, grants)


async def _execute_for_role(admin: AdminConnection, role: str, statements: SQL) -> None:
    """Run *statements*, which name the role and the database, in that database."""
    names = {"role": Identifier(role), "database": Identifier(DATABASE)}
    await admin.execute_in(DATABASE, statements.format(**names))


async def provision_project(admin: AdminConnection, owner: str) -> bool:
    """Create a project's initial content; return False if its database exists."""
    if any(database.name == DATABASE for database in await fetch_databases(admin)):
        return False
    await admin.execute(_create_groups_and_owner(owner))
    for existing in ("template1", "postgres"):
        await admin.execute_in(existing, EXTENSION)
    await create_database(admin, DATABASE, owner)
    return True


async def provision_default_project(
    admin: AdminConnection, state: WorkspaceState, grants: str
) -> None:
    """Create the identities of the default project, and grant their privileges."""
    await admin.execute(_create_default_identities(state))
    for role in (state.client_id, state.native_user):
        await grant(admin, role, grants)
