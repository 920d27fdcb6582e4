"""Connection pools while credentials expire, endpoints suspend and settings change."""

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError
from django.db.utils import ConnectionHandler
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout
from psycopg_pool.pool import WaitingClient

from django_lakebase import pool, signals
from django_lakebase.auth.credentials import Credential, utc_now
from django_lakebase.exceptions import LakebaseError
from tests.helpers.credential_cache import cache_of, cache_token
from tests.helpers.engine_threads import join_threads
from tests.helpers.pool_lifetime import end_lifetime, lifetime_end
from tests.helpers.queries import fetch_value, wait_for_data

pytestmark = pytest.mark.every_environment

POOL = {"min_size": 1, "max_size": 1, "timeout": 60}


def pooled(new_wrapper, alias="pooled", **options):
    """Return a wrapper whose pool has one connection."""
    return new_wrapper(alias, OPTIONS={"pool": dict(POOL), **options})


def session_pid(wrapper):
    """Return the process id of the server session."""
    return fetch_value(wrapper, "SELECT pg_backend_pid()")


def test_pool_reuses_its_connection(new_wrapper):
    wrapper = pooled(new_wrapper)
    first = session_pid(wrapper)
    wrapper.close()

    assert session_pid(wrapper) == first


def test_pool_option_may_be_true(new_wrapper):
    wrapper = new_wrapper("pooled", OPTIONS={"pool": True})

    assert fetch_value(wrapper, "SELECT 1") == 1


def test_pool_opens_connections_after_its_first_credential_expired(new_wrapper, local):
    wrapper = pooled(new_wrapper)
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]), left=30)
    first = session_pid(wrapper)
    wrapper.connection.close()
    wrapper.close()

    assert session_pid(wrapper) != first
    assert wrapper.lifetime.expires_at == cache_of(wrapper).expires_at


def test_open_pool_is_kept_if_conn_max_age_is_changed(new_wrapper):
    """Django rejects that combination only for a new pool."""
    wrapper = pooled(new_wrapper)
    first = session_pid(wrapper)
    wrapper.settings_dict |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
    wrapper.close()

    assert session_pid(wrapper) == first


def test_pool_worker_replaces_a_rejected_token(new_wrapper, local):
    wrapper = pooled(new_wrapper)

    with local.fault("reject-logins", count=1, message="expired"):
        assert fetch_value(wrapper, "SELECT 1") == 1


def test_max_lifetime_is_half_the_lifetime_of_the_credential(new_wrapper, local):
    """If that is less than 45 minutes."""
    wrapper = pooled(new_wrapper)
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]), left=1800)
    fetch_value(wrapper, "SELECT 1")

    assert wrapper.pool.max_lifetime == pytest.approx(900, abs=5)


def test_pooled_connection_is_kept_beyond_max_lifetime_during_an_outage(
    new_wrapper, local
):
    wrapper = pooled(new_wrapper)
    first = session_pid(wrapper)
    cache_token(wrapper, "ending", left=1)

    with local.fault("api-down"):
        end_lifetime(wrapper.connection)
        wrapper.close()
        assert session_pid(wrapper) == first


def test_kept_connection_is_reviewed_before_the_next_credential_expires(
    new_wrapper, local
):
    """Otherwise it would never be replaced if credentials live only for seconds."""
    wrapper, now = pooled(new_wrapper), utc_now()
    token = local.issue_token(local.facts["service_principal"])
    ends = now + timedelta(seconds=40)
    cache_of(wrapper).adopt(Credential(token=token, issued_at=now, expires_at=ends))
    fetch_value(wrapper, "SELECT 1")
    kept = wrapper.connection
    cache_token(wrapper, "ended", left=0)
    end_lifetime(kept)
    before = time.monotonic()
    wrapper.close()

    assert before < lifetime_end(kept) <= time.monotonic() + 10


def test_permanent_error_is_raised_before_the_pool_timeout(new_wrapper, local):
    wrapper = new_wrapper(
        "pooled", NAME="nowhere", OPTIONS={"pool": {**POOL, "timeout": 600}}
    )

    with pytest.raises(
        OperationalError, match='database "nowhere" does not exist'
    ) as caught:
        fetch_value(wrapper, "SELECT 1")

    assert isinstance(caught.value, LakebaseError)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)


def test_pool_timeout_raises_the_last_connect_error(new_wrapper, local):
    fetch_value(new_wrapper(), "SELECT 1")  # The timeout is for the login alone.
    wrapper = new_wrapper("pooled", OPTIONS={"pool": {**POOL, "timeout": 2}})

    with (
        local.fault("reject-logins", message="starting"),
        pytest.raises(LakebaseError, match="is still starting"),
    ):
        fetch_value(wrapper, "SELECT 1")


def test_callers_of_an_endpoint_that_stays_down_get_its_error(new_wrapper, local):
    """Each of them within its own timeout, although no attempt has ended for good."""
    fetch_value(new_wrapper(), "SELECT 1")
    wrapper = new_wrapper("pooled", OPTIONS={"pool": {**POOL, "timeout": 0.5}})

    with (
        local.fault("reject-logins", message="starting"),
        pytest.raises(LakebaseError, match=r"Seen: .*the database system is starting"),
    ):
        fetch_value(wrapper, "SELECT 1")


def test_closing_a_pool_ends_its_retries(new_wrapper, local):
    wrapper = new_wrapper("pooled", OPTIONS={"pool": {**POOL, "timeout": 0.5}})
    with (
        local.fault("reject-logins", message="starting"),
        pytest.raises(LakebaseError),
    ):
        fetch_value(wrapper, "SELECT 1")

    wrapper.pool.close()

    assert not [t for t in threading.enumerate() if t.name.startswith("django-pooled")]


def test_errors_that_come_at_once_cause_no_busy_loop(new_wrapper, local):
    """While it is rate limited, the engine fails without calling the workspace."""
    wrapper = pooled(new_wrapper)
    wrapper.settings_dict["OPTIONS"]["pool"]["timeout"] = 3

    with (
        local.fault("api-429", retry_after=60),
        pytest.raises(LakebaseError, match="rate limiting"),
    ):
        fetch_value(wrapper, "SELECT 1")

    stats = wrapper.pool.get_stats()
    assert stats["connections_num"] < 20
    assert stats["requests_num"] == 1


@contextlib.contextmanager
def counted(signal):
    """Yield a semaphore that is released each time *signal* is sent."""
    count = threading.Semaphore(0)

    def listen(sender, **arguments):
        count.release()

    signal.connect(listen)
    yield count
    signal.disconnect(listen)


def in_background(work):
    """Return the future of *work*, which runs in a thread."""
    executor = ThreadPoolExecutor(1)
    future = executor.submit(work)
    executor.shutdown(wait=False)
    return future


def test_pool_tries_again_for_a_caller_while_connections_are_in_use(new_wrapper, local):
    """A connection that stays in use for long must not hide that the error is gone."""
    size = {**POOL, "min_size": 0, "max_size": 2}
    first, second = (new_wrapper("pooled", OPTIONS={"pool": size}) for _ in range(2))
    fetch_value(first, "SELECT 1")
    second.inc_thread_sharing()

    with (
        local.fault("reject-logins", message="role"),
        counted(signals.connection_failed) as failed,
    ):
        caller = in_background(lambda: fetch_value(second, "SELECT 1"))
        for _ in range(2):  # psycopg_pool tries twice before it gives up.
            assert failed.acquire(timeout=60)

    assert caller.result() == 1


def test_returned_connection_is_reset_while_others_are_being_opened(new_wrapper, local):
    """The workers that open connections also reset those that are returned."""
    size = {"min_size": 4, "max_size": 4, "timeout": 10, "reset": lambda _: None}
    wrappers = [new_wrapper("pooled", OPTIONS={"pool": size}) for _ in range(4)]
    for wrapper in wrappers:
        fetch_value(wrapper, "SELECT 1")

    with (
        local.fault("reject-logins", message="starting"),
        counted(signals.connection_retried) as retried,
    ):
        for wrapper in wrappers[1:]:
            wrapper.connection.close()
            wrapper.close()
            assert retried.acquire(timeout=60)
        wrappers[0].close()

        assert fetch_value(wrappers[0], "SELECT 1") == 1


def test_callers_of_a_pool_that_is_closed_are_told_so(new_wrapper, local, monkeypatch):
    """Also if a worker notices it before the pool does."""
    wrapper, close = pooled(new_wrapper), ConnectionPool.close

    def close_late(pool, timeout=5.0):
        while not pool.get_stats().get("connections_errors"):
            pass
        close(pool, timeout)

    monkeypatch.setattr(ConnectionPool, "close", close_late)
    with local.fault("reject-logins", message="starting"):
        caller = in_background(lambda: fetch_value(wrapper, "SELECT 1"))
        while not wrapper.pool.get_stats()["requests_waiting"]:
            pass
        wrapper.pool.close()

    assert isinstance(caller.exception().__cause__, PoolClosed)


def test_error_is_raised_although_another_attempt_succeeds_meanwhile(
    new_wrapper, local, monkeypatch
):
    wrapper = pooled(new_wrapper)
    take = pool._take_waiting  # noqa: SLF001

    def take_late(own):
        own._error = None  # noqa: SLF001 - as after a success in another worker.
        return take(own)

    monkeypatch.setattr(pool, "_take_waiting", take_late)
    with (
        local.fault("reject-logins", message="role"),
        pytest.raises(LakebaseError) as caught,
    ):
        fetch_value(wrapper, "SELECT 1")

    assert caught.value.failure_id == "role-missing"


def test_psycopg_pool_has_the_private_attributes_that_the_engine_uses(new_wrapper):
    """Without them, permanent errors would wait for the timeout, for example."""
    wrapper = pooled(new_wrapper)
    fetch_value(wrapper, "SELECT 1")
    found = {*vars(wrapper.pool), *vars(wrapper.connection), *dir(WaitingClient)}

    assert found >= {"_lock", "_waiting", "_pool", "_expire_at", "fail"}


def test_exhausted_pool_error_names_alias_and_max_size(new_wrapper):
    first, second = (pooled(new_wrapper) for _ in range(2))
    fetch_value(first, "SELECT 1")
    second.pool.timeout = 0.2

    with pytest.raises(LakebaseError, match=r'\["max_size"\]') as caught:
        fetch_value(second, "SELECT 1")

    assert caught.value.failure_id == "pool-exhausted"
    assert str(caught.value).startswith('DATABASES["pooled"]: ')
    assert "within 0.2 s" in str(caught.value)
    assert isinstance(caught.value.__cause__, PoolTimeout)


@pytest.fixture
def per_thread(local, django_db_blocker, monkeypatch):
    """Yield Django's own handler, which has one wrapper per thread."""
    own = {"ENGINE": "django_lakebase", "OPTIONS": {"pool": POOL}}
    with django_db_blocker.unblock():
        yield ConnectionHandler({"default": {}, "pooled": own})
        gc.collect()
        pool.close_pools("pooled")
        join_threads("django-pooled-worker")


def in_thread(work):
    """Return the result of *work* in a thread that has ended."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def test_connection_of_an_ended_thread_is_replaced(per_thread):
    sessions = [in_thread(lambda: session_pid(per_thread["pooled"])) for _ in range(4)]

    assert len(set(sessions)) == 4
    assert pool.stats_of("pooled")["returns_bad"] == 3


def test_pool_holds_no_reference_to_the_wrapper_that_created_it(per_thread):
    """The connection of its thread could not be recovered otherwise."""
    wrapper = in_thread(
        lambda: session_pid(per_thread["pooled"]) and weakref.ref(per_thread["pooled"])
    )
    gc.collect()

    assert wrapper() is None


def test_abandoned_session_ends_with_its_connection(per_thread, new_wrapper):
    """Its locks are released before the next caller of the pool."""
    gone = in_thread(lambda: session_pid(per_thread["pooled"]))
    other = new_wrapper()
    gc.collect()
    deadline = time.monotonic() + 60
    alive = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {gone}"  # noqa: S608
    while fetch_value(other, alive) and time.monotonic() < deadline:
        pass

    assert not fetch_value(other, alive)


def test_replaced_pool_closes_although_a_thread_never_closed(per_thread):
    old = in_thread(
        lambda: session_pid(per_thread["pooled"]) and per_thread["pooled"].pool
    )

    per_thread["pooled"].settings_dict["OPTIONS"]["connect_budget"] = 9
    session_pid(per_thread["pooled"])

    assert old.closed


@pytest.mark.parametrize("keep", ["wrapper", "connection"])
def test_connection_passed_to_another_thread_stays_checked_out(per_thread, keep):
    def passed_on():
        wrapper = per_thread["pooled"]
        wrapper.inc_thread_sharing()
        fetch_value(wrapper, "SELECT 1")
        return wrapper if keep == "wrapper" else wrapper.connection

    kept = in_thread(passed_on)
    per_thread["pooled"].pool.timeout = 0.2

    with pytest.raises(LakebaseError) as caught:
        fetch_value(per_thread["pooled"], "SELECT 1")

    assert caught.value.failure_id == "pool-exhausted"
    assert "close_old_connections()" in caught.value.hint
    with kept.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_pool_timeout_during_the_first_login_names_the_endpoint(new_wrapper, local):
    wrapper = new_wrapper("pooled", OPTIONS={"pool": {**POOL, "timeout": 0.3}})

    with (
        local.fault("suspend", wake_seconds=60),
        pytest.raises(LakebaseError) as caught,
    ):
        fetch_value(wrapper, "SELECT 1")

    assert caught.value.failure_id == "waking"


def test_assume_role_works_with_a_pool(new_wrapper, local):
    principal = local.facts["service_principal"]
    wrapper = pooled(new_wrapper, assume_role=principal)

    assert fetch_value(wrapper, "SELECT current_user") == principal


def test_invalid_assume_role_is_named_with_a_pool(new_wrapper):
    wrapper = pooled(new_wrapper, assume_role="nobody-has-it")

    with pytest.raises(LakebaseError, match="assume_role"):
        fetch_value(wrapper, "SELECT 1")


def test_wrappers_share_a_pool_only_if_all_settings_are_equal(new_wrapper):
    one_schema = pooled(new_wrapper, options="-c search_path=one")
    other_schema = pooled(new_wrapper, options="-c search_path=other")

    assert fetch_value(one_schema, "SHOW search_path") == "one"
    assert fetch_value(other_schema, "SHOW search_path") == "other"
    one_schema.close()
    assert fetch_value(one_schema, "SHOW search_path") == "one"


def test_pool_is_closed_after_its_settings_changed(new_wrapper):
    wrapper = pooled(new_wrapper)
    fetch_value(wrapper, "SELECT 1")
    old = wrapper.pool
    wrapper.close()

    wrapper.settings_dict["OPTIONS"]["options"] = "-c search_path=changed"
    fetch_value(wrapper, "SELECT 1")

    assert old.closed
    assert not wrapper.pool.closed


def test_connection_that_the_server_closed_is_not_returned(new_wrapper, local):
    """After scale to zero the first query succeeds, without a ping per request."""
    wrapper = pooled(new_wrapper)
    first = session_pid(wrapper)
    connection = wrapper.connection
    wrapper.close()

    local.set_fault("suspend", wake_seconds=0)
    wait_for_data(connection)

    assert session_pid(wrapper) != first


def test_pool_with_persistent_connections_is_rejected(new_wrapper):
    """As in Django."""
    wrapper = new_wrapper("pooled", CONN_MAX_AGE=60, OPTIONS={"pool": True})

    with pytest.raises(ImproperlyConfigured, match="doesn't support persistent"):
        fetch_value(wrapper, "SELECT 1")


def test_configure_function_of_the_project_is_rejected(new_wrapper):
    """As in Django, which sets up the connections itself."""
    wrapper = new_wrapper("pooled", OPTIONS={"pool": {"configure": print}})

    with pytest.raises(ImproperlyConfigured, match="does not accept"):
        fetch_value(wrapper, "SELECT 1")


def test_connection_class_of_the_project_is_used(new_wrapper):
    class Own(psycopg.Connection):
        pass

    wrapper = new_wrapper("pooled", OPTIONS={"pool": {**POOL, "connection_class": Own}})
    fetch_value(wrapper, "SELECT 1")

    assert isinstance(wrapper.connection, Own)


def test_fifty_threads_fetch_one_credential(new_wrapper, local):
    start = threading.Barrier(50)
    found = []

    def work():
        wrapper = new_wrapper("threads")
        start.wait()
        found.append(fetch_value(wrapper, "SELECT 1"))
        wrapper.close()

    with local.fault("api-slow", ms=100):
        threads = [threading.Thread(target=work) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == [1] * 50
    assert local.fetch_counters()["credentials_issued"] == 1


def test_caller_imports_the_sdk_and_not_a_worker():
    """The import takes seconds; a fork meanwhile would leave half a module behind."""
    code = (
        "import sys, threading\n"
        "def write(line):  # At once, because threads write too.\n"
        "    sys.stdout.write(line + '\\n')\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'databricks.sdk':\n"
        "            write(threading.current_thread().name)\n"
        "            raise ImportError('databricks, for the test')\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from django.conf import settings\n"
        "own = {'ENGINE': 'django_lakebase', 'OPTIONS': {'pool': {'timeout': 30}}}\n"
        "settings.configure(DATABASES={'default': own})\n"
        "from django.db import DatabaseError, connection\n"
        "try:\n"
        "    connection.ensure_connection()\n"
        "except DatabaseError as exc:\n"
        "    write(exc.failure_id)\n"
    )
    variables = {**os.environ, "ENDPOINT_NAME": "projects/p/branches/b/endpoints/e"}
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )

    first, *others = said.stdout.split()
    assert first == "MainThread"
    assert "sdk-missing" in others


@pytest.mark.parametrize("change", [{"connect_budget": 9}, {"pool": None}])
def test_connection_is_returned_to_the_pool_that_it_was_taken_from(new_wrapper, change):
    """Also after a change of settings, which applies to the next connection."""
    wrapper = pooled(new_wrapper)
    session_pid(wrapper)
    lender = wrapper.pool

    wrapper.settings_dict["OPTIONS"].update(change)
    wrapper.close()

    assert session_pid(wrapper)
    assert wrapper.pool is not lender
    assert lender.get_stats()["pool_available"] == 1 or lender.is_finished


def test_child_process_does_not_end_the_session_of_a_checked_out_connection(
    new_wrapper, monkeypatch
):
    """At its exit, Python deletes the connections that it inherited."""
    wrapper = pooled(new_wrapper)
    fetch_value(wrapper, "SELECT 1")
    connection, lender = wrapper.connection, wrapper.pool
    assert lender.is_checked_out(connection)

    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        assert not lender.is_checked_out(connection)
