"""Django's own pool option, over credentials that come and go."""

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
from psycopg_pool import PoolTimeout

from django_lakebase import pool
from django_lakebase.connection import LakebaseError
from django_lakebase.credentials import Credential, utc_now
from tests.support import cache_of, hear_from, one, outlive, put

pytestmark = pytest.mark.every_environment

POOL = {"min_size": 1, "max_size": 1, "timeout": 60}


def pooled(new_wrapper, alias="pooled", **options):
    """Return a wrapper whose pool has one connection."""
    return new_wrapper(alias, OPTIONS={"pool": dict(POOL), **options})


def backend(wrapper):
    """Return which session of the server this is."""
    return one(wrapper, "SELECT pg_backend_pid()")


def test_a_pool_keeps_its_connections(new_wrapper):
    """A second request gets the connection of the first, without a login."""
    wrapper = pooled(new_wrapper)
    first = backend(wrapper)
    wrapper.close()

    assert backend(wrapper) == first


def test_pool_may_simply_be_true(new_wrapper):
    """The shortest spelling works, with Django's defaults."""
    wrapper = new_wrapper("pooled", OPTIONS={"pool": True})

    assert one(wrapper, "SELECT 1") == 1


def test_a_pool_survives_the_end_of_its_first_credential(new_wrapper, local):
    """New connections of an old pool have a new credential."""
    wrapper = pooled(new_wrapper)
    put(wrapper, local.issue(local.facts["service_principal"]), left=30)
    first = backend(wrapper)
    wrapper.connection.close()
    wrapper.close()

    assert backend(wrapper) != first
    assert wrapper.lease.expires_at == cache_of(wrapper).expires_at


def test_an_open_pool_stays_while_settings_about_age_are_patched(new_wrapper):
    """What Django asks only of a new pool does not end one that is open."""
    wrapper = pooled(new_wrapper)
    first = backend(wrapper)
    wrapper.settings_dict |= {"CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True}
    wrapper.close()

    assert backend(wrapper) == first


def test_a_refused_token_is_replaced_in_the_pool_too(new_wrapper, local):
    """A worker of the pool tries once more with a new credential."""
    wrapper = pooled(new_wrapper)

    with local.fault("refuse-logins", count=1, message="expired"):
        assert one(wrapper, "SELECT 1") == 1


def test_the_lifetime_of_pooled_connections_follows_the_credential(new_wrapper, local):
    """Half of the credential's life, where that is less than 45 minutes."""
    wrapper = pooled(new_wrapper)
    put(wrapper, local.issue(local.facts["service_principal"]), left=1800)
    one(wrapper, "SELECT 1")

    assert wrapper.pool.max_lifetime == pytest.approx(900, abs=5)


def test_a_connection_past_its_lifetime_is_kept_while_the_workspace_is_down(
    new_wrapper, local
):
    """Nothing is thrown away that cannot be had again."""
    wrapper = pooled(new_wrapper)
    first = backend(wrapper)
    put(wrapper, "ending", left=1)

    with local.fault("api-down"):
        wrapper.connection._expire_at = 0.0
        wrapper.close()
        assert backend(wrapper) == first


def test_a_kept_connection_is_looked_at_again_while_the_next_credential_lives(
    new_wrapper, local
):
    """Else short-lived ones were over at every look, and it was kept for ever."""
    wrapper, now = pooled(new_wrapper), utc_now()
    token = local.issue(local.facts["service_principal"])
    ends = now + timedelta(seconds=40)
    cache_of(wrapper).adopt(Credential(token=token, issued_at=now, expires_at=ends))
    one(wrapper, "SELECT 1")
    kept = wrapper.connection
    put(wrapper, "ended", left=0)
    kept._expire_at = 0.0
    before = time.monotonic()
    wrapper.close()

    assert before < kept._expire_at <= time.monotonic() + 10


def test_wrong_settings_are_shown_at_once_and_not_as_a_timeout(new_wrapper, local):
    """A pool that cannot connect says why, long before its timeout."""
    wrapper = new_wrapper(
        "pooled", NAME="nowhere", OPTIONS={"pool": {**POOL, "timeout": 600}}
    )

    with pytest.raises(OperationalError, match='no database "nowhere"') as caught:
        one(wrapper, "SELECT 1")

    assert isinstance(caught.value, LakebaseError)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)


def test_a_timeout_tells_the_last_error(new_wrapper, local):
    """Where waiting was right but in vain, the reason replaces the bare timeout."""
    one(new_wrapper(), "SELECT 1")  # The timeout is for the login alone.
    wrapper = new_wrapper("pooled", OPTIONS={"pool": {**POOL, "timeout": 2}})

    with (
        local.fault("refuse-logins", message="starting"),
        pytest.raises(LakebaseError, match="is still starting"),
    ):
        one(wrapper, "SELECT 1")


def test_an_exhausted_pool_says_so(new_wrapper):
    """That is a matter of sizes: the error names the alias and what to raise."""
    first, second = (pooled(new_wrapper) for _ in range(2))
    one(first, "SELECT 1")
    second.pool.timeout = 0.2

    with pytest.raises(LakebaseError, match=r'\["max_size"\]') as caught:
        one(second, "SELECT 1")

    assert caught.value.failure_id == "pool-exhausted"
    assert str(caught.value).startswith('DATABASES["pooled"]: ')
    assert "within 0.2 s" in str(caught.value)
    assert isinstance(caught.value.__cause__, PoolTimeout)


@pytest.fixture
def per_thread(local, django_db_blocker, monkeypatch):
    """Give Django's own handler: a wrapper for each thread, which ends with it."""
    own = {"ENGINE": "django_lakebase", "OPTIONS": {"pool": POOL}}
    with django_db_blocker.unblock():
        yield ConnectionHandler({"default": {}, "pooled": own})
        gc.collect()
        pool.close_pools("pooled")
        outlive("django-pooled-worker")


def in_thread(work):
    """Return what *work* returns in a thread that has ended."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


def test_pool_of_one_serves_threads_that_never_close(per_thread):
    """The connection of a thread that ended is replaced when the next one needs it."""
    sessions = [in_thread(lambda: backend(per_thread["pooled"])) for _ in range(4)]

    assert len(set(sessions)) == 4
    assert pool.stats_of("pooled")["returns_bad"] == 3


def test_pool_does_not_keep_the_wrapper_that_made_it(per_thread):
    """Else its connection would be lost with the first thread."""
    wrapper = in_thread(
        lambda: backend(per_thread["pooled"]) and weakref.ref(per_thread["pooled"])
    )
    gc.collect()

    assert wrapper() is None


def test_abandoned_session_ends_with_its_connection(per_thread, new_wrapper):
    """It does not wait for the next caller of the pool, and nor do its locks."""
    gone = in_thread(lambda: backend(per_thread["pooled"]))
    other = new_wrapper()
    gc.collect()
    deadline = time.monotonic() + 60
    alive = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {gone}"  # noqa: S608
    while one(other, alive) and time.monotonic() < deadline:
        pass

    assert not one(other, alive)


def test_replaced_pool_closes_although_a_thread_never_closed(per_thread):
    """Changed settings make another pool; the old one does not wait for ever."""
    old = in_thread(lambda: backend(per_thread["pooled"]) and per_thread["pooled"].pool)

    per_thread["pooled"].settings_dict["OPTIONS"]["connect_budget"] = 9
    backend(per_thread["pooled"])

    assert old.closed


@pytest.mark.parametrize("keep", ["wrapper", "connection"])
def test_connection_passed_on_by_an_ended_thread_stays_lent(per_thread, keep):
    """Its thread has ended, but another one uses it: nobody else may."""

    def passed_on():
        wrapper = per_thread["pooled"]
        wrapper.inc_thread_sharing()
        one(wrapper, "SELECT 1")
        return wrapper if keep == "wrapper" else wrapper.connection

    kept = in_thread(passed_on)
    per_thread["pooled"].pool.timeout = 0.2

    with pytest.raises(LakebaseError) as caught:
        one(per_thread["pooled"], "SELECT 1")

    assert caught.value.failure_id == "pool-exhausted"
    assert "close_old_connections()" in caught.value.mend
    with kept.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_a_first_login_that_takes_longer_than_the_budget_is_named(new_wrapper, local):
    """Nothing has failed yet, and nothing is in use: the endpoint does not answer."""
    wrapper = new_wrapper("pooled", OPTIONS={"pool": {**POOL, "timeout": 0.3}})

    with local.fault("suspend", wake=60), pytest.raises(LakebaseError) as caught:
        one(wrapper, "SELECT 1")

    assert caught.value.failure_id == "waking"


def test_assume_role_works_with_a_pool(new_wrapper, local):
    """SET ROLE is run on the connection that is being made."""
    principal = local.facts["service_principal"]
    wrapper = pooled(new_wrapper, assume_role=principal)

    assert one(wrapper, "SELECT current_user") == principal


def test_a_role_that_cannot_be_assumed_is_named(new_wrapper):
    """A mistake in assume_role is an error with a reason."""
    wrapper = pooled(new_wrapper, assume_role="nobody-has-it")

    with pytest.raises(LakebaseError, match="assume_role"):
        one(wrapper, "SELECT 1")


def test_pools_with_different_options_are_different(new_wrapper):
    """Two aliases, or two wrappers, share a pool only if they share all of it."""
    one_schema = pooled(new_wrapper, options="-c search_path=one")
    other_schema = pooled(new_wrapper, options="-c search_path=other")

    assert one(one_schema, "SHOW search_path") == "one"
    assert one(other_schema, "SHOW search_path") == "other"
    one_schema.close()
    assert one(one_schema, "SHOW search_path") == "one"


def test_a_pool_is_closed_when_its_settings_are_gone(new_wrapper):
    """A change of settings leaves no connections of the old ones behind."""
    wrapper = pooled(new_wrapper)
    one(wrapper, "SELECT 1")
    old = wrapper.pool
    wrapper.close()

    wrapper.settings_dict["OPTIONS"]["options"] = "-c search_path=changed"
    one(wrapper, "SELECT 1")

    assert old.closed
    assert not wrapper.pool.closed


def test_connections_that_the_server_ended_are_not_handed_out(new_wrapper, local):
    """After scale to zero the first query works: no error, no ping per request."""
    wrapper = pooled(new_wrapper)
    first = backend(wrapper)
    connection = wrapper.connection
    wrapper.close()

    local.set_fault("suspend", wake=0)
    hear_from(connection)

    assert backend(wrapper) != first


def test_pooling_refuses_persistent_connections(new_wrapper):
    """As Django does: two things would keep connections."""
    wrapper = new_wrapper("pooled", CONN_MAX_AGE=60, OPTIONS={"pool": True})

    with pytest.raises(ImproperlyConfigured, match="doesn't support persistent"):
        one(wrapper, "SELECT 1")


def test_a_connection_class_of_the_projects_own_is_kept(new_wrapper):
    """Ours is put over it."""

    class Own(psycopg.Connection):
        pass

    wrapper = new_wrapper("pooled", OPTIONS={"pool": {**POOL, "connection_class": Own}})
    one(wrapper, "SELECT 1")

    assert isinstance(wrapper.connection, Own)


def test_fifty_threads_fetch_one_credential(new_wrapper, local):
    """A start under load is one request to the workspace."""
    start = threading.Barrier(50)
    found = []

    def work():
        wrapper = new_wrapper("threads")
        start.wait()
        found.append(one(wrapper, "SELECT 1"))
        wrapper.close()

    with local.fault("api-slow", ms=100):
        threads = [threading.Thread(target=work) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert found == [1] * 50
    assert local.counters()["credentials_issued"] == 1


def test_the_caller_imports_the_sdk_and_not_a_worker():
    """It takes seconds, and a fork meanwhile would leave half a module behind."""
    code = (
        "import sys, threading\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'databricks.sdk':\n"
        "            print(threading.current_thread().name)\n"
        "            raise ImportError('databricks, for the test')\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from django.conf import settings\n"
        "own = {'ENGINE': 'django_lakebase', 'OPTIONS': {'pool': {'timeout': 30}}}\n"
        "settings.configure(DATABASES={'default': own})\n"
        "from django.db import DatabaseError, connection\n"
        "try:\n"
        "    connection.ensure_connection()\n"
        "except DatabaseError as exc:\n"
        "    print(exc.failure_id)\n"
    )
    variables = {**os.environ, "ENDPOINT_NAME": "projects/p/branches/b/endpoints/e"}
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )

    first, *_, last = said.stdout.split()
    assert (first, last) == ("MainThread", "sdk-missing")


@pytest.mark.parametrize("change", [{"connect_budget": 9}, {"pool": None}])
def test_a_connection_goes_back_to_the_pool_that_lent_it(new_wrapper, change):
    """Also if the settings have changed meanwhile, which then hold for the next."""
    wrapper = pooled(new_wrapper)
    backend(wrapper)
    lender = wrapper.pool

    wrapper.settings_dict["OPTIONS"].update(change)
    wrapper.close()

    assert backend(wrapper)
    assert wrapper.pool is not lender
    assert lender.get_stats()["pool_available"] == 1 or lender.is_finished


def test_child_process_does_not_end_the_session_of_a_lent_connection(
    new_wrapper, monkeypatch
):
    """When it ends, Python deletes the connections that it inherited."""
    wrapper = pooled(new_wrapper)
    one(wrapper, "SELECT 1")
    connection, lender = wrapper.connection, wrapper.pool
    assert lender.has_lent(connection)

    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        assert not lender.has_lent(connection)
