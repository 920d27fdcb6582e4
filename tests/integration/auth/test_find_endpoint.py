"""Connections whose settings name a host and no endpoint."""

import threading

import pytest
from django.db import OperationalError, connections

from django_lakebase import warm
from django_lakebase.auth import registry
from django_lakebase.auth.sdk import import_sdk
from django_lakebase.auth.workspace import Workspace
from django_lakebase.config.resolve import ENDPOINT_VARIABLES
from django_lakebase.connect import retry
from django_lakebase.diagnosis.steps import Diagnosis
from django_lakebase.exceptions import LakebaseError
from django_lakebase.signals import connection_opened
from django_lakebase.stats import get_stats
from tests.helpers.app_servers import wait_until
from tests.helpers.credential_cache import cache_of, cached_credential
from tests.helpers.engine_threads import join_threads
from tests.helpers.queries import fetch_value

PROJECTS = "/api/2.0/postgres/projects"
UNKNOWN = "ep-none.database.local-1.lakebase.test"


@pytest.fixture(autouse=True)
def no_endpoint(local, monkeypatch):
    """Remove the name of the endpoint; the host is in PGHOST."""
    monkeypatch.delenv("ENDPOINT_NAME")


@pytest.fixture
def connect(new_wrapper, local):
    """Return a function that makes a connection."""

    def make(alias="found", **settings):
        options = {"hostaddr": local.facts["hostaddr"], **settings.pop("OPTIONS", {})}
        return new_wrapper(alias, **settings, OPTIONS=options)

    return make


def searches(local):
    """Return how often the projects were listed."""
    return local.fetch_counters()["requests"].get(PROJECTS, 0)


@pytest.mark.parametrize("name", ENDPOINT_VARIABLES)
def test_endpoint_that_is_named_is_not_searched_for(connect, local, monkeypatch, name):
    monkeypatch.setenv(name, local.facts["endpoint"])

    assert fetch_value(connect(), "SELECT 1") == 1
    assert searches(local) == 0


@pytest.mark.parametrize("options", [{}, {"pool": True}], ids=["wrapper", "pool"])
def test_pghost_alone_is_enough(connect, local, options):
    wrapper = connect(OPTIONS=options)

    assert fetch_value(wrapper, "SELECT 1") == 1
    assert searches(local) == 1


def test_host_in_settings_is_enough(connect, local, monkeypatch):
    """The endpoint of the environment belongs to PGHOST, so it is not used."""
    monkeypatch.setenv("PGHOST", UNKNOWN)
    monkeypatch.setenv("ENDPOINT_NAME", "projects/p/branches/b/endpoints/e")
    wrapper = connect(HOST=local.facts["host"])

    assert fetch_value(wrapper, "SELECT 1") == 1


def test_endpoint_is_found_once_per_process(connect, local):
    """New connections and new credentials need no further search."""
    for alias in ("first", "second"):
        fetch_value(connect(alias), "SELECT 1")
    wrapper = connect("third")
    cache_of(wrapper).drop(cached_credential(wrapper))
    fetch_value(wrapper, "SELECT 1")

    assert local.fetch_counters()["credentials_issued"] == 2
    assert searches(local) == 1


def test_threads_share_one_search(connect, local):
    ready, values = threading.Barrier(10), []

    def query(wrapper):
        ready.wait(60)
        values.append(fetch_value(wrapper, "SELECT 1"))
        wrapper.close()

    wrappers = [connect(f"thread-{number}") for number in range(10)]
    for wrapper in wrappers:
        wrapper.inc_thread_sharing()
    threads = [threading.Thread(target=query, args=(own,)) for own in wrappers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert values == [1] * 10
    assert searches(local) == 1


@pytest.mark.parametrize("kind", ["primary", "replica"])
def test_endpoint_of_any_branch_and_kind_is_found(
    connect, local, monkeypatch, branch, kind
):
    monkeypatch.setenv("PGHOST", branch[kind].status.hosts.host)
    wrapper = connect()

    is_replica = fetch_value(wrapper, "SELECT pg_is_in_recovery()")

    assert is_replica == (kind == "replica")
    assert cache_of(wrapper).name == branch[kind].name


def test_pooled_host_alone_is_rejected_as_with_an_endpoint(connect, local, monkeypatch):
    """The poolers accept no tokens."""
    label, _, domain = local.facts["host"].partition(".")
    monkeypatch.setenv("PGHOST", f"{label}-pooler.{domain}")

    with pytest.raises(LakebaseError) as caught:
        fetch_value(connect(), "SELECT 1")

    assert caught.value.failure_id == "pooled-host"


@pytest.mark.parametrize("suffix", ["-ro", "-pooler"])
def test_host_with_a_suffix_leads_to_its_endpoint(connect, local, suffix):
    label, _, domain = local.facts["host"].partition(".")
    login = connect().get_target().login

    import_sdk(login)
    found = Workspace(login).find_endpoint(f"{label}{suffix}.{domain}")

    assert found == local.facts["endpoint"]


@pytest.mark.parametrize(
    ("setting", "option"),
    [("PGHOST", "ENDPOINT_NAME"), ("HOST", 'OPTIONS["endpoint"]')],
)
def test_unknown_host_error_lists_what_the_identity_may_see(
    connect, local, monkeypatch, setting, option
):
    settings = {"HOST": UNKNOWN} if setting == "HOST" else {}
    monkeypatch.setenv("PGHOST", UNKNOWN if setting == "PGHOST" else "ep-x.test")

    with pytest.raises(LakebaseError) as caught:
        fetch_value(connect(**settings), "SELECT 1")

    error = caught.value
    assert error.failure_id == "endpoint-not-found-for-host"
    assert f'the host "{UNKNOWN}" (from {setting})' in error.summary
    assert f"{local.facts['endpoint']} ({local.facts['host']})" in error.summary
    assert error.hint.startswith(f"Correct {setting}, or grant")
    assert f"set {option} to projects/" in error.hint


def test_host_that_was_not_found_is_searched_again(connect, local, monkeypatch):
    """The identity may have got its grant."""
    monkeypatch.setenv("PGHOST", UNKNOWN)
    for _ in range(2):
        with pytest.raises(OperationalError):
            fetch_value(connect(), "SELECT 1")

    assert searches(local) == 2


def test_search_that_exceeds_the_budget_goes_on(connect, local):
    """The next connection gets its result."""
    with local.fault("api-slow", ms=400, scope="all"):
        with pytest.raises(LakebaseError, match="no answer within") as caught:
            fetch_value(connect(OPTIONS={"connect_budget": 0.5}), "SELECT 1")
        join_threads("lakebase-workspace")

    assert caught.value.failure_id == "endpoint-search-timeout"
    assert "Set ENDPOINT_NAME to the name of the endpoint" in str(caught.value)
    assert fetch_value(connect(), "SELECT 1") == 1
    assert searches(local) == 1


def test_search_may_take_as_long_as_the_budget(connect, local, monkeypatch):
    """It is longer than a request may take, and than a failure is retried."""
    wrapper, find = connect(), Workspace.find_endpoint

    def find_late(workspace, host):
        wait_until(lambda: cache_of(wrapper).last_exception is not None)
        return find(workspace, host)

    monkeypatch.setattr(Workspace, "find_endpoint", find_late)
    monkeypatch.setattr(registry, "CALL_TIMEOUT", 0.01)
    monkeypatch.setattr(retry, "BRIEF_RETRY_SECONDS", 0.0)

    assert fetch_value(wrapper, "SELECT 1") == 1
    assert searches(local) == 1


def test_failed_list_of_projects_is_an_error_of_the_workspace(connect, local):
    with (
        local.fault("no-workspace-access"),
        pytest.raises(LakebaseError, match="entitlement") as caught,
    ):
        fetch_value(connect(), "SELECT 1")

    assert caught.value.failure_id == "workspace-access-missing"


def test_warm_finds_the_endpoint(connect, local, monkeypatch):
    wrapper = connect("warm")
    monkeypatch.setitem(connections.settings, "warm", wrapper.settings_dict)
    connections["warm"] = wrapper

    warm("warm")
    before = local.fetch_counters()["requests"]
    fetch_value(wrapper, "SELECT 1")
    del connections["warm"]

    assert before[PROJECTS] == 1
    assert local.fetch_counters()["requests"] == before


def test_reports_have_the_name_of_the_endpoint(connect, local, all_logs):
    """Before it is found, they have the host."""
    opened = []

    def receive(connect, **_):
        opened.append(connect.endpoint)

    connection_opened.connect(receive)
    before = get_stats()["default"].endpoint
    fetch_value(connect(), "SELECT 1")
    connection_opened.disconnect(receive)

    assert before == local.facts["host"]
    assert opened == [local.facts["endpoint"]]
    assert get_stats()["default"].endpoint == local.facts["endpoint"]
    assert f"new credential for {local.facts['endpoint']}" in "\n".join(all_logs)


def test_lakebase_check_shows_the_endpoint_and_how_to_name_it(connect, local):
    steps = {step.id: step for step in Diagnosis(connect()).run()}

    assert {step.status for step in steps.values()} == {"ok"}
    assert "no endpoint set (to be found by the host)" in steps["settings"].detail
    assert steps["endpoint"].detail.endswith(
        f"{local.facts['endpoint']}, found by the host {local.facts['host']}: to "
        "save the search, set ENDPOINT_NAME to this name"
    )


def test_lakebase_check_explains_an_unknown_host(connect, monkeypatch):
    monkeypatch.setenv("PGHOST", UNKNOWN)

    steps = {step.id: step for step in Diagnosis(connect()).run()}

    assert steps["endpoint"].status == "fail"
    assert "It can see projects/" in steps["endpoint"].detail
