"""Test databases of a project: names, templates, aliases, missing privileges."""

import contextlib
import re
import time

import psycopg
import pytest

from tests.helpers.shop_test_runs import EARLY, MANAGE, POOLED, PYTEST, Shop
from tests.local.rest_api import RestApi


class Branch:
    """A copy of the local project's server with its own endpoint."""

    def __init__(self, shop: Shop, api: RestApi, name: str) -> None:
        [endpoint] = api.request("GET", f"{name}/endpoints")["endpoints"]
        self.host = endpoint["status"]["hosts"]["host"]
        self.role = shop.local.facts["service_principal"]
        self.owner = {"host": self.host, "user": shop.local.facts["owner"]}
        # The fewest settings for an endpoint that is not that of the environment.
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
    """Yield a branch that has the real database of the project, too."""
    facts = opened_shop.local.facts
    api = RestApi(opened_shop.local.url, facts["owner_token"])
    name = f"{facts['project']}/branches?branch_id=of-the-shop"
    made = api.run_operation("POST", name, {"spec": {"no_expiry": True}})["name"]
    branch = Branch(opened_shop, api, made)
    deadline = time.monotonic() + 60
    while True:
        # A new branch rejects logins at first.
        with contextlib.suppress(psycopg.OperationalError):
            opened_shop.sql("SELECT 1", **branch.owner)
            break
        assert time.monotonic() < deadline
    yield branch
    api.run_operation("DELETE", f"{made}?purge=true")


@pytest.fixture
def branch_without_createdb(shop, branch):
    """Yield the branch while the role may not create databases."""
    shop.sql(f'ALTER ROLE "{branch.role}" NOCREATEDB', **branch.owner)
    yield branch
    shop.drop_test_databases(**branch.owner)
    shop.sql(f'ALTER ROLE "{branch.role}" CREATEDB', **branch.owner)


@pytest.fixture
def prepared(shop):
    """Yield the name of a database of the owner, with a table."""
    owner, name = shop.local.facts["owner"], f"prepared_{shop.name}"
    shop.sql(f"CREATE DATABASE {name}", user=owner)
    shop.sql("CREATE TABLE from_the_template (n int)", user=owner, dbname=name)
    yield name
    shop.sql(f"ALTER DATABASE {name} IS_TEMPLATE false", user=owner)
    shop.sql(f"DROP DATABASE {name}", user=owner)


def sql_in_output(run, pattern):
    """Return the SQL that the output says to run."""
    [sql] = re.findall(pattern, run.output)
    return sql


def test_test_database_uses_name_and_template_of_settings(shop, prepared):
    """A template of another owner must be marked as one, and the error says so."""
    name = f"test_of_{shop.name}"
    test = {"NAME": name, "TEMPLATE": prepared}
    databases = {"default": {"ENGINE": "django_lakebase", "TEST": test}}

    rejected = shop.run(*MANAGE, databases=databases)
    hint = sql_in_output(rejected, r"ALTER DATABASE .*? IS_TEMPLATE true;")
    shop.sql(hint, user=shop.local.facts["owner"])
    run = shop.run(*MANAGE, databases=databases)

    assert rejected.status == 2
    assert f'is not allowed to copy the database "{prepared}"' in rejected.output
    assert run.status == 0, run.output
    assert run.each("database") == {name}
    assert all("from_the_template" in note["tables"] for note in run.notes)
    shop.assert_nothing_is_left()


def test_aliases_of_one_database_share_its_test_database(shop):
    """No alias stays connected to the real one."""
    databases = {
        "default": POOLED,
        "mirror": {**POOLED, "TEST": {"MIRROR": "default"}},
        "same": {"ENGINE": "django_lakebase"},
    }

    run = shop.run(*MANAGE, databases=databases, **EARLY)

    assert run.status == 0, run.output
    assert run.each("alias") == set(databases)
    assert run.each("database") == {f"test_{shop.name}"}
    committed = [n["rows"] for n in run.notes if n["kind"] == "CommittedTests"]
    assert committed == [sorted(databases)] * 3
    shop.assert_nothing_is_left()


def test_two_endpoints_without_host_have_separate_test_databases(shop, branch):
    """In each parallel worker, too."""
    facts = shop.local.facts
    here = {"endpoint": facts["endpoint"], "hostaddr": facts["hostaddr"]}
    databases = {
        "default": {**POOLED, "OPTIONS": {**POOLED["OPTIONS"], **here}},
        "other": branch.settings,
    }

    run = shop.run(*MANAGE, "--parallel=2", databases=databases, **EARLY)

    assert run.status == 0, run.output
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


def test_error_without_createdb_has_sql_that_fixes_it(shop, branch_without_createdb):
    """The owner runs it, and the tests pass."""
    databases = {"default": branch_without_createdb.settings}

    rejected = shop.run(*MANAGE, databases=databases)
    shop.sql(
        sql_in_output(rejected, r"ALTER ROLE .*? CREATEDB;"),
        **branch_without_createdb.owner,
    )
    run = shop.run(*MANAGE, databases=databases)

    assert rejected.status == 2
    assert "Traceback" not in rejected.output
    assert 'DATABASES["default"]: ' in rejected.output
    assert f'the test database "test_{shop.name}"' in rejected.output
    assert run.status == 0, run.output
    shop.assert_nothing_is_left(host=branch_without_createdb.host)


def test_role_without_createdb_can_use_a_prepared_database(
    shop, branch_without_createdb
):
    """The second way of the hint, also for pytest; the database is kept."""
    databases = {"default": branch_without_createdb.settings}
    name = f"test_{shop.name}"

    rejected = shop.run(*PYTEST, databases=databases)
    shop.sql(
        sql_in_output(rejected, r"CREATE DATABASE .*?;"),
        **branch_without_createdb.owner,
    )
    grant = sql_in_output(rejected, r"GRANT USAGE, CREATE .*?;")
    shop.sql(grant, **branch_without_createdb.owner, dbname=name)
    kept = shop.test_databases(**branch_without_createdb.owner)
    run = shop.run(*PYTEST, "--reuse-db", databases=databases)

    assert rejected.status == 1
    assert "--reuse-db" in rejected.output
    assert run.status == 0, run.output
    assert run.each("database") == {name}
    assert shop.test_databases(**branch_without_createdb.owner) == kept
