"""Test databases of a user's project: settings, several aliases, what a role lacks."""

import pytest

from tests.local.conftest import Api
from tests.shop import MANAGE, Shop, opened

EARLY = {"SHOP_READS_EARLY": "yes"}


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

    def __init__(self, shop: Shop, api: Api, name: str) -> None:
        [endpoint] = api.ask("GET", f"{name}/endpoints")["endpoints"]
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
            },
        }


@pytest.fixture(scope="module")
def branch(opened_shop):
    """Give a branch that has the project's real database too."""
    facts = opened_shop.local.facts
    api = Api(opened_shop.local.url, facts["owner_token"])
    name = f"{facts['project']}/branches?branch_id=of-the-shop"
    made = api.do("POST", name, {"spec": {"no_expiry": True}})["name"]
    yield Branch(opened_shop, api, made)
    api.do("DELETE", f"{made}?purge=true")


def test_aliases_of_one_database_share_its_test_database(shop):
    """None stays in the real one, or in that which Django is to drop."""
    pooled = {"ENGINE": "django_lakebase", "OPTIONS": {"pool": True}}
    databases = {
        "default": pooled,
        "mirror": {**pooled, "TEST": {"MIRROR": "default"}},
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
    databases = {
        "default": {"ENGINE": "django_lakebase", "OPTIONS": {"pool": True}},
        "other": branch.settings,
    }
    databases["default"]["OPTIONS"]["endpoint"] = shop.local.facts["endpoint"]
    databases["default"]["OPTIONS"]["hostaddr"] = shop.local.facts["hostaddr"]

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
