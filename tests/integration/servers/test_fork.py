"""Processes that fork with a warm parent: gunicorn --preload, Celery prefork."""

import os
import signal
import threading
import traceback
from typing import Any

import pytest
from django.db import ProgrammingError

from django_lakebase import signals, workspace
from tests.helpers.credentials import cache_of, cache_token, cached_credential
from tests.helpers.wrappers import fetch_value

CREDENTIALS = "/api/2.0/postgres/credentials"

# Python says so since 3.12; these tests are about the cases where people do it.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:This process .* is multi-threaded:DeprecationWarning"
    ),
    pytest.mark.every_environment,
]


def in_child(work):
    """Run *work* in a forked child and return what it returns, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            answer = str(work())
        except BaseException:  # noqa: BLE001 - the parent asserts on it.
            answer = traceback.format_exc()
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def test_a_child_has_a_pool_of_its_own(new_wrapper):
    """Two processes on one socket would read each other's answers."""
    wrapper = new_wrapper("forked", OPTIONS={"pool": {"min_size": 1, "max_size": 1}})
    parents = fetch_value(wrapper, "SELECT pg_backend_pid()")
    wrapper.close()

    childs = [
        in_child(lambda: fetch_value(wrapper, "SELECT pg_backend_pid()"))
        for _ in range(2)
    ]

    assert str(parents) not in childs
    assert len(set(childs)) == 2
    assert fetch_value(wrapper, "SELECT pg_backend_pid()") == parents


@pytest.mark.parametrize("options", [{}, {"pool": True}], ids=["plain", "pool"])
def test_a_child_leaves_an_open_connection_to_its_parent(new_wrapper, options):
    """Whether it goes on working or closes what it found: the parent's lives on."""
    wrapper = new_wrapper("forked", OPTIONS=options)
    parents = fetch_value(wrapper, "SELECT pg_backend_pid()")

    def work():
        own = fetch_value(wrapper, "SELECT pg_backend_pid()")
        wrapper.close()
        return own

    closing = in_child(wrapper.close)
    working = in_child(work)

    assert closing == "None"
    assert working.isdigit(), working
    assert working != str(parents)
    assert fetch_value(wrapper, "SELECT pg_backend_pid()") == parents


def test_a_child_is_outside_of_its_parents_transaction(new_wrapper):
    """What it did there could be nobody's: it is an error, and the parent's holds."""
    wrapper = new_wrapper("forked")
    wrapper.ensure_connection()
    wrapper.set_autocommit(False)
    wrapper.in_atomic_block = True
    inside = fetch_value(wrapper, "SELECT txid_current()")

    childs = in_child(lambda: fetch_value(wrapper, "SELECT 1"))

    assert ProgrammingError.__name__ in childs
    assert fetch_value(wrapper, "SELECT txid_current()") == inside
    wrapper.in_atomic_block = False
    wrapper.rollback()


def test_a_child_uses_the_credential_of_its_parent(new_wrapper, local):
    """A warm parent saves its children the request."""
    wrapper = new_wrapper("forked")
    fetch_value(wrapper, "SELECT 1")
    wrapper.close()

    assert in_child(lambda: fetch_value(wrapper, "SELECT 1")) == "1"
    assert local.counters()["credentials_issued"] == 1


def test_a_child_can_fetch_while_its_parent_was_fetching(new_wrapper, local):
    """A fork in the middle of a request inherits no lock that nobody will free."""
    wrapper = new_wrapper("forked")
    fetch_value(wrapper, "SELECT 1")
    wrapper.close()
    cache = cache_of(wrapper)
    cache.drop(cached_credential(wrapper))
    with local.fault("api-slow", ms=500):
        busy = threading.Thread(target=cache.get)
        busy.start()
        while not local.counters()["requests"].get(CREDENTIALS):
            pass
        answer = in_child(lambda: fetch_value(wrapper, "SELECT 1"))
        busy.join()

    assert answer == "1"


def with_due_credential(wrapper, local):
    """Give the cache of *wrapper* a valid credential past its refresh time."""
    token = local.issue(local.facts["service_principal"])
    credential = cache_token(wrapper, token, left=600)
    # A process that holds a credential has imported the SDK.
    workspace.import_sdk()
    local.reset_counters()
    return credential


def test_requests_per_forked_job_are_bounded(new_wrapper, local):
    """The parent refreshes once for twenty jobs, and no child asks for anything."""
    wrapper = new_wrapper("forked")
    with_due_credential(wrapper, local)
    threads = threading.active_count()

    jobs = [in_child(lambda: fetch_value(wrapper, "SELECT 1")) for _ in range(20)]

    counted = local.counters()
    assert jobs == ["1"] * 20
    assert counted["requests"].get(CREDENTIALS) == 1
    # A child that asked for one would have logged in as well.
    assert counted["requests"]["/oidc/v1/token"] == 1
    assert cache_of(wrapper).issued == 1
    assert threading.active_count() == threads


def test_expired_credential_is_refreshed_before_fork(new_wrapper, local):
    """A worker that was idle for an hour hands no dead credential to the next job."""
    wrapper = new_wrapper("forked")
    cache_token(wrapper, "expired", left=-60)
    workspace.import_sdk()

    job = in_child(lambda: cache_of(wrapper).ready() is not None)

    assert job == "True"


def test_fork_before_the_first_credential_asks_for_nothing(new_wrapper, local):
    """Most processes that fork never use the database."""
    wrapper = new_wrapper("forked")
    workspace.access_to(wrapper.get_target())

    in_child(lambda: None)

    assert local.counters()["requests"] == {}


def test_opt_out_counts_for_all_aliases_that_share_the_credential(new_wrapper, local):
    """The parent then asks for nothing, and the child that needs one does."""
    wrapper = new_wrapper("forked")
    with_due_credential(wrapper, local)
    other = new_wrapper("other", OPTIONS={"refresh_before_fork": False})
    assert cache_of(other) is cache_of(wrapper)

    in_child(lambda: None)

    assert local.counters()["requests"] == {}


def test_failed_refresh_does_not_stop_forks_and_is_not_repeated(new_wrapper, local):
    """The children work with what is left of the old credential, and ask nobody."""
    wrapper = new_wrapper("forked")
    with_due_credential(wrapper, local)
    with local.fault("api-429", retry_after=60):
        jobs = [in_child(lambda: fetch_value(wrapper, "SELECT 1")) for _ in range(5)]

    assert jobs == ["1"] * 5
    assert local.counters()["requests"].get(CREDENTIALS) == 1


def test_fork_does_not_wait_for_a_silent_workspace(new_wrapper, local, monkeypatch):
    """The request goes on in the parent, while the child is already at work."""
    monkeypatch.setattr(workspace, "FORK_WAITS", 0.2)
    wrapper = new_wrapper("forked")
    with_due_credential(wrapper, local)
    cache = cache_of(wrapper)
    with local.fault("api-slow", ms=5000):
        jobs = [in_child(lambda: fetch_value(wrapper, "SELECT 1")) for _ in range(3)]
        is_still_asking = cache.is_refreshing()

    assert jobs == ["1"] * 3
    assert is_still_asking
    cache.join(15)
    assert local.counters()["requests"].get(CREDENTIALS) == 1
    assert cache.issued == 1


def test_receiver_of_credential_issued_may_fork(new_wrapper, local):
    """It runs in the thread that a fork would wait for."""
    wrapper = new_wrapper("forked")
    wrapper.inc_thread_sharing()
    with_due_credential(wrapper, local)
    jobs = []

    def fork(**_):
        jobs.append(in_child(lambda: fetch_value(wrapper, "SELECT 1")))

    signals.credential_issued.connect(fork)
    try:
        cache_of(wrapper).ready()
        cache_of(wrapper).join(15)
    finally:
        signals.credential_issued.disconnect(fork)

    assert jobs == ["1"]
    assert cache_of(wrapper).issued == 1


@pytest.mark.parametrize("name", ["registry", "import", "refresh"])
def test_signal_handler_may_fork_while_its_thread_holds_a_lock(
    new_wrapper, local, name
):
    """Python runs handlers between any two steps of the main thread."""
    wrapper = new_wrapper("forked")
    with_due_credential(wrapper, local)
    # Locks are internal, and each of them may be held when a signal arrives.
    locks: dict[str, Any] = {
        "registry": workspace._registry_lock,  # noqa: SLF001
        "import": workspace._import_lock,  # noqa: SLF001
        "refresh": cache_of(wrapper)._flight._lock,  # noqa: SLF001
    }
    jobs = []

    def fork(*_):
        jobs.append(in_child(lambda: fetch_value(wrapper, "SELECT 1")))

    before = signal.signal(signal.SIGUSR1, fork)
    try:
        with locks[name]:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert jobs == ["1"]
    assert cache_of(wrapper).issued == 1
