"""The warning about a host that is not a host of the configured endpoint."""

import logging
import threading

import pytest

from django_lakebase.auth import host_check, registry
from django_lakebase.diagnosis.steps import Diagnosis
from tests.helpers.credential_cache import cache_of, cache_token
from tests.helpers.engine_threads import join_threads
from tests.helpers.queries import fetch_value

THREAD = "lakebase-host-check"


@pytest.fixture
def immediate(monkeypatch):
    """Make the check start without a delay."""
    monkeypatch.setattr(host_check, "DELAY", 0.0)


@pytest.fixture
def other(branch, monkeypatch):
    """Name the endpoint of another branch than the host's, and return its name."""
    monkeypatch.setenv("ENDPOINT_NAME", branch["primary"].name)
    return branch["primary"].name


def requests_for(local, endpoint=""):
    """Return how often the endpoint was requested."""
    path = f"/api/2.0/postgres/{endpoint or local.facts['endpoint']}"
    return local.fetch_counters()["requests"].get(path, 0)


def warnings(caplog):
    """Return the warnings about hosts, after the checks have ended."""
    join_threads(THREAD)
    records = [r for r in caplog.records if r.levelno >= logging.WARNING]
    return [r for r in records if "not a host of" in r.getMessage()]


@pytest.fixture
def is_waiting():
    """Return a function that says whether a check of this test waits or runs."""
    before = set(threading.enumerate())

    def is_new(thread):
        return thread.name == THREAD and thread not in before

    return lambda: any(map(is_new, threading.enumerate()))


def test_host_of_another_endpoint_is_one_warning_per_process(
    new_wrapper, local, caplog, immediate, other
):
    for alias in ("one", "two", "three"):
        fetch_value(new_wrapper(alias), "SELECT 1")

    [record] = warnings(caplog)
    text = record.getMessage()
    assert text.startswith(f'one: PGHOST is "{local.facts["host"]}", which is not')
    assert "Correct PGHOST or ENDPOINT_NAME" in text
    assert record.lakebase_endpoint == other
    assert requests_for(local, other) == 1


@pytest.mark.parametrize("pool", [False, True])
def test_host_of_the_endpoint_is_no_warning(
    new_wrapper, local, caplog, immediate, pool
):
    for _ in range(2):
        fetch_value(new_wrapper("own", OPTIONS={"pool": pool}), "SELECT 1")

    assert warnings(caplog) == []
    assert requests_for(local) == 1


def test_check_of_a_silent_workspace_delays_no_connection(
    new_wrapper, local, caplog, immediate, is_waiting
):
    cache_of(new_wrapper("silent")).get()

    with local.fault("api-hang"):
        assert fetch_value(new_wrapper("silent"), "SELECT 1") == 1
        assert is_waiting()

    assert warnings(caplog) == []


def test_failure_of_the_check_is_not_a_warning(new_wrapper, local, caplog, immediate):
    cache_of(new_wrapper("down")).get()
    caplog.set_level(logging.DEBUG)

    with local.fault("api-down"):
        fetch_value(new_wrapper("down"), "SELECT 1")
        join_threads(THREAD)

    assert "the host could not be checked" in caplog.text
    levels = [r.levelno for r in caplog.records if r.name == "django_lakebase"]
    assert max(levels) < logging.WARNING


def test_inherited_credential_needs_no_check(new_wrapper, local, immediate):
    """A child process for a single job makes no request."""
    wrapper = new_wrapper("inherited")
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]))

    fetch_value(wrapper, "SELECT 1")
    join_threads(THREAD)

    assert requests_for(local) == 0


def test_check_that_waits_is_cancelled_before_a_fork(new_wrapper, local, is_waiting):
    """Python warns about a fork while a thread runs; the next connection starts it."""
    fetch_value(new_wrapper("fork"), "SELECT 1")
    assert is_waiting()

    registry._refresh_due_credentials()  # noqa: SLF001 - Python calls it before a fork.

    assert not is_waiting()
    fetch_value(new_wrapper("fork"), "SELECT 1")
    assert is_waiting()


@pytest.mark.parametrize("name", ["PGHOST", "ENDPOINT_NAME"])
def test_host_or_endpoint_alone_is_not_checked(
    new_wrapper, local, monkeypatch, is_waiting, name
):
    monkeypatch.delenv(name)

    fetch_value(new_wrapper("alone"), "SELECT 1")

    assert not is_waiting()


def test_lakebase_check_has_the_text_of_the_warning(
    new_wrapper, local, caplog, immediate, other
):
    fetch_value(new_wrapper("check"), "SELECT 1")
    [record] = warnings(caplog)

    steps = {step.id: step for step in Diagnosis(new_wrapper("check")).run()}

    endpoint = steps["endpoint"]
    assert endpoint.status == "warn"
    assert record.getMessage() == f"check: {endpoint.detail}. {endpoint.hint}"
