"""Extensions that ``lakebase_role create`` creates, and those of read-only roles."""

import pytest
from django.db import migrations

from tests.integration.roles.conftest import GRANTS, Site

# The embedded PostgreSQL has no such extensions.
pytestmark = pytest.mark.parametrize("server", ["system"], indirect=True)
APP = "tests.projects.words"


@pytest.fixture
def words(site: Site, settings) -> Site:
    """Install an app whose migration creates two extensions."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, APP]
    return site


def create(site: Site) -> str:
    command = ("lakebase_role", "create", "--service-principal", site.app)
    return site.call(site.owner, *command)


def test_read_only_role_leaves_them_to_the_role_that_migrates(words):
    words.execute(
        words.owner,
        GRANTS["guide"],
        "ALTER ROLE {app} IN DATABASE {database} "
        "SET default_transaction_read_only = on",
    )

    step = words.check()["extensions"]

    assert step["status"] == "ok"
    assert step["detail"].endswith("migrate will create earthdistance, pg_trgm")


def test_extension_that_was_dropped_is_created_again(words):
    create(words)
    words.call(words.app, "migrate", "-v0")
    words.execute(words.owner, "DROP EXTENSION pg_trgm")
    assert words.check()["extensions"]["status"] == "fail"

    out = create(words)

    assert 'CREATE EXTENSION IF NOT EXISTS "pg_trgm" SCHEMA "public";' in out
    assert words.check()["extensions"]["status"] == "ok"


def test_extension_that_the_server_does_not_offer(words, monkeypatch):
    monkeypatch.setattr(
        "tests.projects.words.migrations.0001_extensions.Migration.operations",
        [migrations.RunSQL([("CREATE EXTENSION nothing_like_it", None)])],
    )

    step = words.check()["extensions"]

    [finding] = step["findings"]
    assert finding["id"] == "extension-unavailable"
    assert (finding["statements"], step["status"]) == ([], "fail")
    assert "CREATE EXTENSION" not in create(words)
