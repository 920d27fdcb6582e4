"""What ``lakebase_check`` reports about the schema that migrate would use."""

from typing import NamedTuple

from django_lakebase.roles.statements import (
    SEQUENCE_PRIVILEGES,
    TABLE_PRIVILEGES,
    all_relations_of,
    grant_database,
    grant_relations,
    grant_schema,
    quoted,
)

# One row, with the fields of SchemaFacts. The project's schema may be an empty string.
QUERY = """
SELECT current_database(), current_user,
    coalesce(nullif(%(schema)s, ''), current_schema()),
    current_setting('search_path'), n.oid IS NOT NULL,
    has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE'),
    has_database_privilege(current_database(), 'CREATE'),
    ARRAY(SELECT m.nspname::text FROM pg_class c JOIN pg_namespace m
        ON m.oid = c.relnamespace WHERE c.relname = 'django_migrations' ORDER BY 1)
FROM (VALUES (coalesce(nullif(%(schema)s, ''), current_schema(), 'public'))) v (name)
LEFT JOIN pg_namespace n ON n.nspname = v.name
"""


class SchemaFacts(NamedTuple):
    """
    What the server reports about schemas, and the privileges of the current *role*.

    *schema* is the project's schema, or else the current one; None if the role may use
    no schema in the search path. *may_create_tables* is None if *schema* does not
    exist. *migrated* are the schemas that contain Django's table of applied migrations.
    """

    database: str
    role: str
    schema: str | None
    search_path: str
    exists: bool
    may_create_tables: bool | None
    may_create_schemas: bool
    migrated: list[str]


def describe_schema(facts: SchemaFacts, setting: str) -> tuple[str, str]:
    """
    Return what was found and, if something is wrong, a hint.

    *setting* is the project's schema, empty if it has set none.
    """
    if facts.schema is None and "public" in facts.search_path:
        facts = facts._replace(schema="public")
    found, hint = _describe_privileges(facts, setting)
    others = facts.migrated
    if facts.schema is not None and others and facts.schema not in others:
        named = ", ".join(map(quoted, others))
        verb = "does" if len(others) == 1 else "do"
        found = f'where "{facts.schema}" contains no Django tables, but {named} {verb}'
        outcome = f"fail. {hint}" if hint else "create new, empty tables."
        other = quoted(others[0])
        hint = (
            f"migrate would {outcome} To use the tables in {other} instead, set "
            f'OPTIONS["schema"] (LAKEBASE_SCHEMA) to {other}, and run as its owner: '
            f"{_grant_tables(others[0], facts.role)} Migrations that alter these "
            "tables must still run as their owner."
        )
    return f'"{facts.database}", {found}', hint


def _describe_privileges(facts: SchemaFacts, setting: str) -> tuple[str, str]:
    """Return whether migrate can create tables, and a hint if it cannot."""
    database, role, schema = facts.database, facts.role, facts.schema
    hint = ""
    if schema is None:
        found = "where no schema in the search_path exists"
        hint = (
            'Create one; correct the search_path (OPTIONS["options"], PGOPTIONS, or '
            'ALTER ROLE ... SET); or replace it with OPTIONS["schema"] '
            "(LAKEBASE_SCHEMA), which migrate creates."
        )
    elif not facts.exists and facts.may_create_schemas:
        found = f'where migrate will create the schema "{schema}"'
    elif not facts.exists:
        found = f'where this role may not create the schema "{schema}"'
        hint = "As the owner of the database, run: " + grant_database(
            ["CREATE"], database, role
        )
    elif facts.may_create_tables:
        found = f'can create tables in the schema "{schema}"'
    else:
        found = f'where this role may not create tables in the schema "{schema}"'
        hint = f"To run migrations, run as the owner: {_grant_schema(schema, role)}"
        if facts.may_create_schemas and not setting:
            hint += (
                " Or let migrate create a schema for the project: set "
                'OPTIONS["schema"] (LAKEBASE_SCHEMA); on Databricks Apps, to auto.'
            )
    return found, hint


def _grant_schema(schema: str, role: str) -> str:
    return grant_schema(("USAGE", "CREATE"), schema, role)


def _grant_tables(schema: str, role: str) -> str:
    tables = all_relations_of("TABLE", schema)
    sequences = all_relations_of("SEQUENCE", schema)
    return (
        f"{_grant_schema(schema, role)} "
        f"{grant_relations(TABLE_PRIVILEGES, tables, role)} "
        f"{grant_relations(SEQUENCE_PRIVILEGES, sequences, role)}"
    )
