"""Endpoints that sleep, wake, restart or are cut off."""

import threading

import psycopg
import pytest
from django.db import OperationalError

from django_lakebase.connection import LakebaseError
from tests.support import hear_from, one

pytestmark = pytest.mark.every_environment


def backend(wrapper):
    """Return which session of the server this is."""
    return one(wrapper, "SELECT pg_backend_pid()")


def test_a_login_waits_for_an_endpoint_that_wakes(new_wrapper, local):
    """The gateway holds the login: that is no error."""
    local.set_fault("suspend", wake=0.3)

    assert one(new_wrapper(), "SELECT 1") == 1


def test_refusals_while_waking_are_waited_out(new_wrapper, local):
    """A server that is starting up is asked again until it serves."""
    local.set_fault("starting", seconds=0)
    is_over = threading.Event()

    def start_after_a_refusal():
        while not local.counters()["refusals"] and not is_over.is_set():
            pass
        local.clear_faults()

    starting = threading.Thread(target=start_after_a_refusal)
    starting.start()
    try:
        assert one(new_wrapper(), "SELECT 1") == 1
    finally:
        is_over.set()
        starting.join()

    assert local.counters()["refusals"] >= 1
    assert local.counters()["credentials_issued"] == 1


def test_waiting_ends_with_the_budget(new_wrapper, local):
    """Who waits in vain learns for what, and which setting to raise."""
    one(new_wrapper(), "SELECT 1")  # The budget is for the login alone.
    wrapper = new_wrapper(OPTIONS={"connect_budget": 1})

    with (
        local.fault("refuse-logins", message="starting"),
        pytest.raises(LakebaseError, match="connect_budget") as caught,
    ):
        one(wrapper, "SELECT 1")

    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert "starting up" in str(caught.value)


def test_a_persistent_connection_survives_scale_to_zero(new_wrapper, local):
    """What the server has ended is noticed at the request boundary, for free."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    first = backend(wrapper)

    local.set_fault("suspend", wake=0)
    hear_from(wrapper.connection)
    wrapper.close_if_unusable_or_obsolete()

    assert backend(wrapper) != first


def test_a_reset_connection_is_replaced_at_the_next_request(new_wrapper, local):
    """A network fault costs the request that it hits, and no other."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    first = backend(wrapper)

    local.set_fault("cut")
    hear_from(wrapper.connection)
    wrapper.close_if_unusable_or_obsolete()

    assert backend(wrapper) != first


def test_a_healthy_connection_is_kept_without_a_query(new_wrapper):
    """The look at an idle connection is free."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    first = backend(wrapper)
    asked = []
    wrapper.is_usable = lambda: asked.append("ping") or True

    wrapper.close_if_unusable_or_obsolete()

    assert asked == []
    assert backend(wrapper) == first


def test_a_waiting_notification_is_not_lost(new_wrapper):
    """A readable socket may hold a message that somebody waits for."""
    listener, speaker = new_wrapper(CONN_MAX_AGE=None), new_wrapper("speaker")
    one(listener, "SELECT 1")
    with listener.cursor() as cursor:
        cursor.execute("LISTEN news")
    one(speaker, "SELECT pg_notify('news', 'hello')::text")
    hear_from(listener.connection)

    listener.close_if_unusable_or_obsolete()

    [notice] = listener.connection.notifies(timeout=5, stop_after=1)
    assert notice.payload == "hello"


def test_a_transaction_is_never_moved_to_another_connection(new_wrapper, local):
    """Inside atomic a lost connection is an error: its locks are gone."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    wrapper.ensure_connection()

    wrapper.set_autocommit(False)
    one(wrapper, "SELECT 1")
    local.set_fault("cut")

    with pytest.raises(OperationalError):
        one(wrapper, "SELECT 1")


def test_a_new_branch_that_refuses_for_a_moment_is_waited_for(new_wrapper, local):
    """External authorization fails for a while after a branch was made."""
    with local.fault("refuse-logins", count=2, message="authorization"):
        assert one(new_wrapper(), "SELECT 1") == 1


def test_all_fails_at_once_that_waiting_cannot_mend(new_wrapper, local):
    """Too many connections, a disabled endpoint: one attempt, and the mend."""
    for message in ("too-many", "disabled"):
        local.reset_counters()
        with (
            local.fault("refuse-logins", message=message),
            pytest.raises(LakebaseError),
        ):
            one(new_wrapper(), "SELECT 1")
        assert local.counters()["refusals"] == 1
