"""What lakebase_check says about the schema, and what it advises."""

import pytest

from django_lakebase.diagnosis.schema import SchemaFacts, describe_schema

OPEN = SchemaFacts(
    database="app",
    role="me",
    schema="mine",
    search_path='"mine",public',
    exists=True,
    may_create_tables=True,
    may_create_schemas=True,
    migrated=["theirs"],
)
NEW = OPEN._replace(exists=False, may_create_tables=None)


@pytest.mark.parametrize("facts", [OPEN, NEW])
def test_tables_in_another_schema_leave_the_choice_to_the_reader(facts):
    detail, hint = describe_schema(facts, "mine")

    assert '"mine" contains no Django tables, but "theirs" does' in detail
    assert "migrate would create new, empty tables" in hint
    assert 'set OPTIONS["schema"] (LAKEBASE_SCHEMA) to "theirs"' in hint


@pytest.mark.parametrize(
    ("facts", "setting", "advice"),
    [
        (
            NEW._replace(may_create_schemas=False),
            "mine",
            'GRANT CREATE ON DATABASE "app" TO "me";',
        ),
        (
            OPEN._replace(may_create_tables=False),
            "mine",
            'GRANT USAGE, CREATE ON SCHEMA "mine" TO "me";',
        ),
        (
            OPEN._replace(schema="public", may_create_tables=False),
            "",
            "on Databricks Apps, to auto",
        ),
    ],
)
def test_missing_privilege_is_reported_with_tables_in_another_schema(
    facts, setting, advice
):
    """A second app of the database that has not set its schema, for example."""
    detail, hint = describe_schema(facts, setting)

    assert "contains no Django tables" in detail
    assert "would create new" not in hint
    assert "migrate would fail" in hint
    assert advice in hint


def test_several_other_schemas_get_advice_for_one():
    """The statements are for one schema, so the advice names the same one."""
    _, hint = describe_schema(OPEN._replace(migrated=["a", "b"]), "mine")

    assert 'to "a"' in hint
    assert 'ON SCHEMA "a"' in hint
