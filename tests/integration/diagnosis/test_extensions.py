"""The step ``extensions`` of ``lakebase_check --deploy``."""

import pytest

from django_lakebase.diagnosis.extensions import check_extensions, find_extensions
from tests.integration.roles.conftest import GRANTS

FIRST = "0001_initial"
FIELD = """
from django.contrib.postgres.fields import HStoreField
"""
SCHEMA_OF = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = "


def ids(step):
    return [finding["id"] for finding in step["findings"]]


def schema_of(site, name):
    with site.session(site.owner) as session:
        [(schema,)] = session.execute(f"{SCHEMA_OF}'{name}'").fetchall()
    return schema


@pytest.fixture
def creatable(site):
    """Let the app create tables, but no extensions."""
    site.execute(site.owner, "GRANT CREATE ON SCHEMA public TO {app}")


def test_project_without_extensions_needs_none(site, write_migration):
    write_migration(FIRST)

    step = site.check()["extensions"]

    assert (step["status"], step["detail"]) == ("ok", "the project needs none")


@pytest.mark.parametrize("grants", ["app"], indirect=True)
def test_pending_migration_creates_a_trusted_extension(
    site, write_migration, creatable
):
    """If the role may create it."""
    write_migration(FIRST, "HStoreExtension()", 'RunSQL("CREATE EXTENSION pg_trgm")')

    step = site.check()["extensions"]
    site.call(site.app, "migrate", "-v0")
    after = site.check()["extensions"]

    assert (step["status"], ids(step)) == ("ok", [])
    assert step["detail"] == "migrate will create hstore, pg_trgm"
    assert after["detail"] == "present: hstore, pg_trgm"


@pytest.mark.parametrize("schema", ["", "things"])
def test_extension_that_the_role_may_not_create(
    site, write_migration, creatable, schema
):
    """The owner of the database creates it, and the app can use and migrate it."""
    write_migration(
        FIRST,
        "CITextExtension()",
        "SeparateDatabaseAndState([HStoreExtension()])",
        'CreateModel("Thing", [("id", models.AutoField(primary_key=True)), '
        '("tags", HStoreField())])',
        code=FIELD,
    )
    if schema:
        site.execute(site.owner, "CREATE SCHEMA things AUTHORIZATION {app}")

    step = site.check(schema=schema)["extensions"]
    site.correct(step)
    after = site.check(schema=schema)["extensions"]
    site.call(site.app, "migrate", "-v0", schema=schema)

    assert step["status"] == "fail"
    assert ids(step) == ["extension-missing", "extension-missing"]
    assert (
        f'app.0001_initial needs, is missing, and "{site.app}" may not'
        in (step["detail"])
    )
    assert {finding["role"] for finding in step["findings"]} == {site.owner}
    assert after["status"] == "ok"
    assert after["detail"] == "present: citext, hstore"
    assert schema_of(site, "hstore") == "public"


@pytest.mark.parametrize("grants", ["app"], indirect=True)
def test_extension_whose_migration_is_applied_is_missing(
    site, write_migration, creatable
):
    """Although the role may create it: migrate will not."""
    write_migration(FIRST, "HStoreExtension()")
    site.call(site.app, "migrate", "-v0")
    site.execute(site.app, "DROP EXTENSION hstore")

    step = site.check()["extensions"]
    site.correct(step)
    after = site.check()["extensions"]

    assert ids(step) == ["extension-missing"]
    assert step["detail"].endswith("missing, and no pending migration creates it")
    assert after["status"] == "ok"


@pytest.mark.parametrize("grants", ["app"], indirect=True)
def test_extension_that_a_later_migration_drops_is_not_needed(site, write_migration):
    write_migration(FIRST, "HStoreExtension()")
    write_migration(
        "0002_next", 'RunSQL("DROP EXTENSION IF EXISTS HStore")', after=FIRST
    )

    assert site.check()["extensions"]["detail"] == "the project needs none"


@pytest.mark.parametrize("grants", ["app"], indirect=True)
@pytest.mark.parametrize(
    ("operations", "is_created"),
    [
        ('CreateExtension("earthdistance")', False),
        ('CreateExtension("cube"), CreateExtension("earthdistance")', True),
        ('RunSQL("create extension earthdistance cascade")', True),
    ],
)
def test_extension_that_requires_another(
    site, write_migration, creatable, operations, is_created
):
    write_migration(FIRST, operations)

    step = site.check()["extensions"]
    if not is_created:
        assert ids(step) == ["extension-missing"]
        assert step["detail"].endswith('creates "cube", which it needs')
        site.correct(step)
        step = site.check()["extensions"]
    site.call(site.app, "migrate", "-v0")

    assert step["status"] == "ok"
    assert schema_of(site, "cube") == "public"


def test_unavailable_extension_is_reported_without_sql(site, write_migration):
    write_migration(FIRST, 'CreateExtension("no such")')

    step = site.check()["extensions"]

    [finding] = step["findings"]
    assert (step["status"], finding["id"]) == ("fail", "extension-unavailable")
    assert finding["statements"] == []
    assert '"no such"' in finding["hint"]
    assert "not available on this server" in finding["detail"]


def test_extension_that_only_a_superuser_can_create_is_unavailable(
    site, write_migration
):
    write_migration(FIRST, 'CreateExtension("dblink")')

    step = site.check()["extensions"]

    [finding] = step["findings"]
    assert (step["status"], finding["id"]) == ("fail", "extension-unavailable")
    assert finding["statements"] == []
    assert "only a superuser" in finding["detail"]


def test_router_that_excludes_a_migration_excludes_its_extensions(
    site, write_migration, settings
):
    write_migration(FIRST, 'RunSQL("CREATE EXTENSION hstore", hints={"geo": True})')

    class Router:
        def allow_migrate(self, db, app_label, **hints):
            return "geo" not in hints

    settings.DATABASE_ROUTERS = [Router()]

    assert site.check()["extensions"]["detail"] == "the project needs none"


@pytest.mark.parametrize("grants", ["app"], indirect=True)
def test_unreadable_history_counts_as_pending(site, write_migration, creatable):
    write_migration(FIRST, "HStoreExtension()")
    site.call(site.owner, "migrate", "-v0")
    site.execute(site.owner, "DROP EXTENSION hstore")

    step = site.check()["extensions"]

    assert step["detail"] == "migrate will create hstore"


def test_postgis_engine_needs_postgis(
    site, write_migration, open_step_session, monkeypatch
):
    """The engine creates it before the first migration, if the role may."""
    write_migration(FIRST)
    session = open_step_session()
    monkeypatch.setattr(session.wrapper.features, "gis_enabled", True)
    with site.session(site.owner) as owner:
        query = "SELECT FROM pg_available_extensions WHERE name = 'postgis'"
        if not owner.execute(query).fetchall():
            pytest.skip("the local Lakebase's PostgreSQL has no PostGIS")

    [finding] = check_extensions(session).findings
    site.execute(site.owner, GRANTS["app"])
    creatable = check_extensions(session)
    site.execute(finding.role, *finding.statements)
    present = check_extensions(session)

    assert finding.id == "extension-missing"
    assert "which the engine django_lakebase.postgis needs" in finding.detail
    assert creatable.detail == "migrate will create postgis"
    assert present.detail == "present: postgis"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('create extension if not exists "A ""b"""', [('A "b"', True, False)]),
        ("-- CREATE EXTENSION a\n/* CREATE EXTENSION b; */", []),
        ("SELECT 'CREATE EXTENSION a'", []),
        (
            "CREATE EXTENSION A SCHEMA x CASCADE;\nDROP EXTENSION b",
            [("a", True, True), ("b", False, False)],
        ),
        ("", []),
    ],
)
def test_extensions_are_found_in_sql(text, found):
    assert list(find_extensions(text)) == found
