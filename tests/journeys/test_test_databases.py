"""Test databases of a user's project: settings, several aliases, what a role lacks."""

import contextlib
import re
import time

import psycopg
import pytest

from tests.local.rest_api import RestApi
from tests.shop import EARLY, MANAGE, POOLED, PYTEST, Shop, opened


@pytest.fixture(scope="module")
def opened_shop(lakebase, tmp_path_factory):
    """Give the project, with its real database."""
    with opened(lakebase, tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture
def shop(opened_shop, local):
    """Give the project, without what an earlier test kept."""
    yield opened_shop
    opened_shop.drop_test_databases()


class Branch:
    """A copy of the local project's server, with an endpoint of its own."""

    def __init__(self, shop: Shop, api: RestApi, name: str) -> None:
        [endpoint] = api.request("GET", f"{name}/endpoints")["endpoints"]
        self.host = endpoint["status"]["hosts"]["host"]
        self.role = shop.local.facts["service_principal"]
        self.owner = {"host": self.host, "user": shop.local.facts["owner"]}
        # As bare as settings can be that lead away from the environment's endpoint.
        self.settings = {
            "ENGINE": "django_lakebase",
            "NAME": shop.name,
            "OPTIONS": {
                "endpoint": endpoint["name"],
                "hostaddr": shop.local.facts["hostaddr"],
                "connect_budget": 120,
            },
        }


@pytest.fixture(scope="module")
def branch(opened_shop):
    """Give a branch that has the project's real database too."""
    facts = opened_shop.local.facts
    api = RestApi(opened_shop.local.url, facts["owner_token"])
    name = f"{facts['project']}/branches?branch_id=of-the-shop"
    made = api.run_operation("POST", name, {"spec": {"no_expiry": True}})["name"]
    branch = Branch(opened_shop, api, made)
    deadline = time.monotonic() + 60
    while True:
        # A new branch lets nobody in for a moment.
        with contextlib.suppress(psycopg.OperationalError):
            opened_shop.sql("SELECT 1", **branch.owner)
            break
        assert time.monotonic() < deadline
    yield branch
    api.run_operation("DELETE", f"{made}?purge=true")


@pytest.fixture
def poor(shop, branch):
    """Give the branch while the role may not create databases there."""
    shop.sql(f'ALTER ROLE "{branch.role}" NOCREATEDB', **branch.owner)
    yield branch
    shop.drop_test_databases(**branch.owner)
    shop.sql(f'ALTER ROLE "{branch.role}" CREATEDB', **branch.owner)


@pytest.fixture
def prepared(shop):
    """Give the name of a database of the owner's, with a table."""
    owner, name = shop.local.facts["owner"], f"prepared_{shop.name}"
    shop.sql(f"CREATE DATABASE {name}", user=owner)
    shop.sql("CREATE TABLE from_the_template (n int)", user=owner, dbname=name)
    yield name
    shop.sql(f"ALTER DATABASE {name} IS_TEMPLATE false", user=owner)
    shop.sql(f"DROP DATABASE {name}", user=owner)


def told(run, pattern):
    """Return the SQL that the user was told to run."""
    [sql] = re.findall(pattern, run.said)
    return sql


def test_the_name_and_the_template_of_a_test_database(shop, prepared):
    """A template of somebody else's has to be one, and the user is told."""
    name = f"test_of_{shop.name}"
    test = {"NAME": name, "TEMPLATE": prepared}
    databases = {"default": {"ENGINE": "django_lakebase", "TEST": test}}

    refused = shop.run(*MANAGE, databases=databases)
    mend = told(refused, r"ALTER DATABASE .*? IS_TEMPLATE true;")
    shop.sql(mend, user=shop.local.facts["owner"])
    run = shop.run(*MANAGE, databases=databases)

    assert refused.status == 2
    assert f'may not copy the database "{prepared}"' in refused.said
    assert run.status == 0, run.said
    assert run.each("database") == {name}
    assert all("from_the_template" in note["tables"] for note in run.notes)
    shop.assert_nothing_is_left()


def test_aliases_of_one_database_share_its_test_database(shop):
    """None stays in the real one, or in that which Django is to drop."""
    databases = {
        "default": POOLED,
        "mirror": {**POOLED, "TEST": {"MIRROR": "default"}},
        "same": {"ENGINE": "django_lakebase"},
    }

    run = shop.run(*MANAGE, databases=databases, **EARLY)

    assert run.status == 0, run.said
    assert run.each("alias") == set(databases)
    assert run.each("database") == {f"test_{shop.name}"}
    committed = [n["rows"] for n in run.notes if n["kind"] == "CommittedTests"]
    assert committed == [sorted(databases)] * 3
    shop.assert_nothing_is_left()


def test_two_endpoints_have_a_test_database_each(shop, branch):
    """Where no HOST tells them apart either, and in every worker."""
    facts = shop.local.facts
    here = {"endpoint": facts["endpoint"], "hostaddr": facts["hostaddr"]}
    databases = {
        "default": {**POOLED, "OPTIONS": {**POOLED["OPTIONS"], **here}},
        "other": branch.settings,
    }

    run = shop.run(*MANAGE, "--parallel=2", databases=databases, **EARLY)

    assert run.status == 0, run.said
    assert run.each("alias", "host", "database") == {
        (alias, host, f"test_{shop.name}_{n}")
        for alias, host in [
            ("default", shop.local.facts["host"]),
            ("other", branch.host),
        ]
        for n in (1, 2)
    }
    assert all(note["rows"] == [note["alias"]] for note in run.notes)
    shop.assert_nothing_is_left()
    shop.assert_nothing_is_left(host=branch.host)


def test_a_role_without_createdb_is_told_what_to_run(shop, poor):
    """The owner runs it, and the tests pass."""
    databases = {"default": poor.settings}

    refused = shop.run(*MANAGE, databases=databases)
    shop.sql(told(refused, r"ALTER ROLE .*? CREATEDB;"), **poor.owner)
    run = shop.run(*MANAGE, databases=databases)

    assert refused.status == 2
    assert "Traceback" not in refused.said
    assert 'DATABASES["default"]: ' in refused.said
    assert f'the test database "test_{shop.name}"' in refused.said
    assert run.status == 0, run.said
    shop.assert_nothing_is_left(host=poor.host)


def test_a_role_without_createdb_may_use_a_database_of_the_owner_s(shop, poor):
    """The other way that the user is told, by pytest too; it is used and kept."""
    databases = {"default": poor.settings}
    name = f"test_{shop.name}"

    refused = shop.run(*PYTEST, databases=databases)
    shop.sql(told(refused, r"CREATE DATABASE .*?;"), **poor.owner)
    grant = told(refused, r"GRANT USAGE, CREATE .*?;")
    shop.sql(grant, **poor.owner, dbname=name)
    kept = shop.test_databases(**poor.owner)
    run = shop.run(*PYTEST, "--reuse-db", databases=databases)

    assert refused.status == 1
    assert "--reuse-db" in refused.said
    assert run.status == 0, run.said
    assert run.each("database") == {name}
    assert shop.test_databases(**poor.owner) == kept
