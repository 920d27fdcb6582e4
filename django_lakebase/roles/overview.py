"""What ``lakebase_role show`` reports about each role of the database."""

from dataclasses import dataclass

from psycopg.rows import class_row

from django_lakebase.connect.liveness import Connection

from .facts import (
    Database,
    Request,
    Role,
    count_by_owner,
    fetch_facts,
    is_of_service,
)
from .statements import TABLE_PRIVILEGES

# The privileges of every role, by inheritance or as a member of PUBLIC, too.
_PRIVILEGES = """
SELECT r.rolname::text AS role,
    ARRAY(SELECT p FROM unnest(ARRAY['CONNECT', 'CREATE']) p
        WHERE has_database_privilege(r.oid, current_database(), p)) AS database,
    ARRAY(SELECT p FROM unnest(ARRAY['USAGE', 'CREATE']) p
        WHERE has_schema_privilege(r.oid, n.oid, p)) AS schema,
    count(c.oid) FILTER (WHERE has_table_privilege(r.oid, c.oid, 'SELECT')) AS readable,
    count(c.oid) FILTER (WHERE (SELECT bool_and(has_table_privilege(r.oid, c.oid, p))
        FROM unnest(%(privileges)s::text[]) p)) AS writable
FROM pg_roles r LEFT JOIN pg_namespace n ON n.nspname = %(schema)s
    LEFT JOIN pg_class c ON c.relnamespace = n.oid
        AND c.relname = ANY(%(tables)s::text[])
WHERE r.rolname = ANY(%(roles)s::text[]) GROUP BY r.rolname, r.oid, n.oid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges:
    """
    The privileges of a role on the database, on the schema, and on tables.

    *readable* and *writable* are numbers of tables of the installed apps.
    """

    role: str
    database: list[str]
    schema: list[str]
    readable: int
    writable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The roles of the database; *owners* is the number of tables by their owner."""

    database: Database
    roles: list[Role]
    privileges: dict[str, Privileges]
    owners: dict[str, int]


def fetch_overview(connection: Connection, request: Request) -> Overview:
    """Read the roles, apart from those of the service, and their privileges."""
    facts = fetch_facts(connection, request)
    roles = [role for role in facts.roles.values() if not is_of_service(role.name)]
    values = {
        "privileges": list(TABLE_PRIVILEGES),
        "schema": facts.database.schema,
        "tables": [r.name for r in facts.relations if r.kind == "TABLE"],
        "roles": [role.name for role in roles],
    }
    with connection.cursor(row_factory=class_row(Privileges)) as cursor:
        rows = cursor.execute(_PRIVILEGES, values).fetchall()
    return Overview(
        database=facts.database,
        roles=roles,
        privileges={row.role: row for row in rows},
        owners=count_by_owner(facts.relations),
    )
