"""Endpoints that suspend, wake, restart or lose their connections."""

import threading

import psycopg
import pytest
from django.db import OperationalError

from django_lakebase.exceptions import LakebaseError
from tests.helpers.queries import fetch_value, wait_for_data

pytestmark = pytest.mark.every_environment


def session_pid(wrapper):
    """Return the process id of the server session."""
    return fetch_value(wrapper, "SELECT pg_backend_pid()")


def test_login_waits_for_a_waking_endpoint(new_wrapper, local):
    local.set_fault("suspend", wake_seconds=0.3)

    assert fetch_value(new_wrapper(), "SELECT 1") == 1


def test_rejections_while_the_server_starts_are_retried(new_wrapper, local):
    local.set_fault("server-starting", seconds=0)
    is_over = threading.Event()

    def start_after_a_rejection():
        while not local.fetch_counters()["rejections"] and not is_over.is_set():
            pass
        local.clear_faults()

    starting = threading.Thread(target=start_after_a_rejection)
    starting.start()
    try:
        assert fetch_value(new_wrapper(), "SELECT 1") == 1
    finally:
        is_over.set()
        starting.join()

    assert local.fetch_counters()["rejections"] >= 1
    assert local.fetch_counters()["credentials_issued"] == 1


def test_budget_error_names_reason_and_setting(new_wrapper, local):
    fetch_value(new_wrapper(), "SELECT 1")  # The budget is for the login alone.
    wrapper = new_wrapper(OPTIONS={"connect_budget": 1})

    with (
        local.fault("reject-logins", message="starting"),
        pytest.raises(LakebaseError, match="connect_budget") as caught,
    ):
        fetch_value(wrapper, "SELECT 1")

    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert "starting up" in str(caught.value)


def test_persistent_connection_is_replaced_after_scale_to_zero(new_wrapper, local):
    """At the request boundary, without a query."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    first = session_pid(wrapper)

    local.set_fault("suspend", wake_seconds=0)
    wait_for_data(wrapper.connection)
    wrapper.close_if_unusable_or_obsolete()

    assert session_pid(wrapper) != first


def test_reset_connection_is_replaced_at_the_next_request(new_wrapper, local):
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    first = session_pid(wrapper)

    local.set_fault("reset-connections")
    wait_for_data(wrapper.connection)
    wrapper.close_if_unusable_or_obsolete()

    assert session_pid(wrapper) != first


def test_healthy_connection_is_kept_without_a_query(new_wrapper):
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    first = session_pid(wrapper)
    wrapper.is_usable = pytest.fail

    wrapper.close_if_unusable_or_obsolete()

    assert session_pid(wrapper) == first


def test_connection_with_a_waiting_notification_is_kept(new_wrapper):
    """Its socket is readable although the session is alive."""
    listener, speaker = new_wrapper(CONN_MAX_AGE=None), new_wrapper("speaker")
    fetch_value(listener, "SELECT 1")
    with listener.cursor() as cursor:
        cursor.execute("LISTEN news")
    fetch_value(speaker, "SELECT pg_notify('news', 'hello')::text")
    wait_for_data(listener.connection)

    listener.close_if_unusable_or_obsolete()

    [notice] = listener.connection.notifies(timeout=5, stop_after=1)
    assert notice.payload == "hello"


def test_lost_connection_in_a_transaction_is_an_error(new_wrapper, local):
    """The locks of the transaction are gone."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    wrapper.ensure_connection()

    wrapper.set_autocommit(False)
    fetch_value(wrapper, "SELECT 1")
    local.set_fault("reset-connections")

    with pytest.raises(OperationalError):
        fetch_value(wrapper, "SELECT 1")


def test_external_authorization_failure_of_a_new_branch_is_retried(new_wrapper, local):
    with local.fault("reject-logins", count=2, message="authorization"):
        assert fetch_value(new_wrapper(), "SELECT 1") == 1


def test_permanent_failure_raises_after_one_attempt(new_wrapper, local):
    """For example too many connections, or a disabled endpoint."""
    for message in ("too-many", "disabled"):
        local.reset_counters()
        with (
            local.fault("reject-logins", message=message),
            pytest.raises(LakebaseError),
        ):
            fetch_value(new_wrapper(), "SELECT 1")
        assert local.fetch_counters()["rejections"] == 1
