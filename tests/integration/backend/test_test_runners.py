"""A user's tests: Django's runner and pytest, in one process and in several."""

import django
import pytest

from tests.helpers.shop_project import EARLY, MANAGE, POOLED, PYTEST, opened

PARALLEL = (*MANAGE, "--parallel=2")
# Seconds. A new credential has as long to log in, on whatever machine.
SHORT_LIFE = 8


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


def assert_each_worker_had_its_own(run, databases):
    """Check that two processes wrote to two *databases*, on sessions of their own."""
    assert run.each("database") == set(databases)
    assert len(run.each("process")) == len(run.each("process", "database")) == 2
    assert len(run.each("backend")) == len(run.notes)


def test_an_early_query_does_not_lead_the_tests_to_the_real_database(shop):
    """A pool that was opened before the test database is left; Django keeps it."""
    run = shop.run(*MANAGE, databases={"default": POOLED}, **EARLY)

    assert run.status == 0, run.said
    assert run.each("database") == {f"test_{shop.name}"}
    shop.assert_nothing_is_left()


@pytest.mark.skipif(
    django.VERSION < (6, 0), reason="Django runs tests with forkserver from 6.0 on"
)
def test_workers_of_a_fork_server_have_clones(shop):
    """Each gets the settings, makes its own credential and pool, and writes there."""
    run = shop.run(
        *PARALLEL,
        databases={"default": POOLED},
        SHOP_START_METHOD="forkserver",
        **EARLY,
    )

    assert run.status == 0, run.said
    assert "Cloning test database" in run.said
    assert_each_worker_had_its_own(run, [f"test_{shop.name}_{n}" for n in (1, 2)])
    shop.assert_nothing_is_left()


def test_forked_workers_outlive_the_credential_of_their_parent(shop, local):
    """They start with it, and each makes another when it is refused."""
    with local.fault("token-life", seconds=SHORT_LIFE):
        run = shop.run(
            *PARALLEL,
            SHOP_START_METHOD="fork",
            SHOP_OUTLIVES=str(SHORT_LIFE),
        )

    assert run.status == 0, run.said
    assert_each_worker_had_its_own(run, [f"test_{shop.name}_{n}" for n in (1, 2)])
    assert local.counters()["refusals"] >= 1
    shop.assert_nothing_is_left()


def test_keepdb_keeps_the_clones_too(shop):
    """Workers that are spawned have made them, and forked ones write to the same."""
    keep = [*PARALLEL, "--keepdb"]
    first = shop.run(
        *keep, databases={"default": POOLED}, SHOP_START_METHOD="spawn", **EARLY
    )
    kept = shop.test_databases()
    second = shop.run(
        *keep, databases={"default": POOLED}, SHOP_START_METHOD="fork", **EARLY
    )

    clones = [f"test_{shop.name}_{n}" for n in (1, 2)]
    assert set(kept) == {f"test_{shop.name}", *clones}
    assert shop.test_databases() == kept
    for run in (first, second):
        assert run.status == 0, run.said
        assert_each_worker_had_its_own(run, clones)
    shop.drop_test_databases()
    shop.assert_nothing_is_left()


def test_pytest_makes_a_database_and_keeps_it_if_told(shop):
    """With the fixture of ours that the how-to shows; the pool was open before."""
    run = shop.run(*PYTEST, "--reuse-db", databases={"default": POOLED}, **EARLY)

    assert run.status == 0, run.said
    assert "4 passed" in run.said
    assert run.each("database") == set(shop.test_databases()) == {f"test_{shop.name}"}
    shop.drop_test_databases()
    shop.assert_nothing_is_left()


def test_each_process_of_xdist_has_a_test_database(shop):
    """Named for it, though the settings name no database at all."""
    some = ["-k", "test_rows_are_in_the_test_database"]

    run = shop.run(*PYTEST, "-n", "2", *some)

    assert run.status == 0, run.said
    assert_each_worker_had_its_own(run, [f"test_{shop.name}_gw{n}" for n in (0, 1)])
    shop.assert_nothing_is_left()


def test_tests_without_a_database_ask_nobody(shop, local):
    """No setting, no workspace and no server is needed, as with Django's backend."""
    nowhere = dict.fromkeys(local.env, "")

    run = shop.run(*MANAGE, "catalog.tests.WithoutDatabaseTests", **nowhere)

    assert run.status == 0, run.said
    assert local.counters()["requests"] == {}
