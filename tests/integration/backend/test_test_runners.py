"""Test runs of a project with the runner of Django and with pytest."""

import django
import pytest

from tests.helpers.shop_test_runs import EARLY, MANAGE, POOLED, PYTEST

PARALLEL = (*MANAGE, "--parallel=2")
# Seconds in which a new credential must have logged in, also on a slow machine.
SHORT_LIFE = 8


def assert_each_worker_had_its_own(run, databases):
    """Check that two processes wrote to two *databases* in separate sessions."""
    assert run.each("database") == set(databases)
    assert len(run.each("process")) == len(run.each("process", "database")) == 2
    assert len(run.each("backend")) == len(run.notes)


def test_query_while_django_starts_does_not_redirect_tests_to_the_real_database(shop):
    """Django keeps the connection; the engine leaves the pool that it belongs to."""
    run = shop.run(*MANAGE, databases={"default": POOLED}, **EARLY)

    assert run.status == 0, run.output
    assert run.each("database") == {f"test_{shop.name}"}
    shop.assert_nothing_is_left()


@pytest.mark.skipif(
    django.VERSION < (6, 0), reason="Django runs tests with forkserver from 6.0 on"
)
def test_forkserver_workers_use_clones(shop):
    """Each has its own credential and pool."""
    run = shop.run(
        *PARALLEL,
        databases={"default": POOLED},
        SHOP_START_METHOD="forkserver",
        **EARLY,
    )

    assert run.status == 0, run.output
    assert "Cloning test database" in run.output
    assert_each_worker_had_its_own(run, [f"test_{shop.name}_{n}" for n in (1, 2)])
    shop.assert_nothing_is_left()


def test_forked_workers_replace_the_rejected_credential_of_their_parent(shop, local):
    with local.fault("short-token-lifetime", seconds=SHORT_LIFE):
        run = shop.run(
            *PARALLEL,
            SHOP_START_METHOD="fork",
            SHOP_OUTLIVES=str(SHORT_LIFE),
        )

    assert run.status == 0, run.output
    assert_each_worker_had_its_own(run, [f"test_{shop.name}_{n}" for n in (1, 2)])
    assert local.fetch_counters()["rejections"] >= 1
    shop.assert_nothing_is_left()


def test_keepdb_keeps_clones(shop):
    """Spawned workers create them, and forked workers reuse them."""
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
        assert run.status == 0, run.output
        assert_each_worker_had_its_own(run, clones)
    shop.drop_test_databases()
    shop.assert_nothing_is_left()


def test_pytest_creates_a_database_and_reuses_it(shop):
    """With the fixture of the how-to; a pool is open before."""
    run = shop.run(*PYTEST, "--reuse-db", databases={"default": POOLED}, **EARLY)

    assert run.status == 0, run.output
    assert "4 passed" in run.output
    assert run.each("database") == set(shop.test_databases()) == {f"test_{shop.name}"}
    shop.drop_test_databases()
    shop.assert_nothing_is_left()


def test_each_xdist_worker_has_a_test_database(shop):
    """Although the settings name no database."""
    some = ["-k", "test_rows_are_in_the_test_database"]

    run = shop.run(*PYTEST, "-n", "2", *some)

    assert run.status == 0, run.output
    assert_each_worker_had_its_own(run, [f"test_{shop.name}_gw{n}" for n in (0, 1)])
    shop.assert_nothing_is_left()


def test_tests_without_a_database_need_no_settings_and_send_no_request(shop, local):
    nowhere = dict.fromkeys(local.env, "")

    run = shop.run(*MANAGE, "catalog.tests.WithoutDatabaseTests", **nowhere)

    assert run.status == 0, run.output
    assert local.fetch_counters()["requests"] == {}
