"""The changes that take a role's privileges in the project's schema away again."""

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from django_lakebase.connect.liveness import Connection

from . import statements
from .change import Change
from .facts import Request

# REVOKE removes only what one grantor has granted, of several that the current role may
# act for, so each statement switches to its grantor. Privileges on columns are left
# out: neither Django nor this package grants them.
_GRANTS = """
WITH grantee AS (SELECT oid FROM pg_roles WHERE rolname = %(role)s),
schema AS (SELECT oid, nspname, nspacl FROM pg_namespace
    WHERE nspname = coalesce(nullif(%(schema)s, ''), current_schema(), 'public')),
grants AS (
    SELECT 1 AS position, 'default-privileges' AS id, a.defaclrole AS grantor,
        CASE a.defaclobjtype WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
        schema.nspname AS schema, '' AS name
    FROM pg_default_acl a JOIN schema ON schema.oid = a.defaclnamespace
        CROSS JOIN LATERAL aclexplode(a.defaclacl) x, grantee
    WHERE x.grantee = grantee.oid AND a.defaclobjtype IN ('r', 'S')
    UNION SELECT CASE c.relkind WHEN 'S' THEN 2 ELSE 3 END,
        CASE c.relkind WHEN 'S' THEN 'sequence-privileges' ELSE 'table-privileges' END,
        x.grantor, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
        schema.nspname, c.relname
    FROM pg_class c JOIN schema ON schema.oid = c.relnamespace
        CROSS JOIN LATERAL aclexplode(c.relacl) x, grantee
    WHERE x.grantee = grantee.oid AND c.relowner <> x.grantee
    UNION SELECT 4, 'schema-privileges', x.grantor, 'SCHEMA', '', schema.nspname
    FROM schema CROSS JOIN LATERAL aclexplode(schema.nspacl) x, grantee
    WHERE x.grantee = grantee.oid
    UNION SELECT 5, 'database-privileges', x.grantor, 'DATABASE', '', d.datname
    FROM pg_database d CROSS JOIN LATERAL aclexplode(d.datacl) x, grantee
    WHERE x.grantee = grantee.oid AND d.datname = current_database()
    UNION SELECT 6, 'membership', m.grantor, 'ROLE', '', g.rolname
    FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid, grantee
    WHERE m.member = grantee.oid AND g.rolname = %(owner_role)s
)
SELECT position, id, pg_get_userbyid(grantor)::text, kind, schema::text, name::text
FROM grants ORDER BY 1, 3, 4, 6
"""


def plan_revoke(connection: Connection, request: Request) -> list[Change]:
    """Return the changes that revoke what the role of *request* was granted."""
    values = {
        "role": request.role,
        "owner_role": request.owner_role,
        "schema": request.schema,
    }
    rows = connection.execute(_GRANTS, values).fetchall()
    [(runner,)] = connection.execute("SELECT current_user").fetchall()
    return list(_changes(rows, request.role, runner))


def _as_role(role: str, statement: str) -> tuple[str, ...]:
    return statements.switch_to(role), statement, "RESET ROLE;"


def _changes(rows: list[tuple[str, ...]], role: str, runner: str) -> Iterator[Change]:
    for key, group in groupby(rows, itemgetter(0, 1, 2, 3, 4)):
        _, change_id, grantor, kind, schema = key
        names = [name for *_, name in group]
        if change_id == "default-privileges":
            action = statements.revoke(f"ALL ON {kind}S", role)
            sql = statements.default_privileges(grantor, schema, action)
        elif kind == "ROLE":
            sql = statements.revoke(statements.quoted(names[0]), role) + ";"
        elif schema:
            relations = statements.relations_of(kind, schema, names)
            sql = statements.revoke(f"ALL ON {relations}", role) + ";"
        else:
            on = f"ALL ON {kind} {statements.quoted(names[0])}"
            sql = statements.revoke(on, role) + ";"
        yield Change(
            id=change_id,
            role=grantor,
            detail=f'"{role}" was granted this by "{grantor}"',
            statements=(sql,) if grantor == runner else _as_role(grantor, sql),
        )
