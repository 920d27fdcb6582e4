"""Counters, log records and signals."""

import contextlib
import logging
import os

import pytest
from django.db import OperationalError

from django_lakebase import events, signals
from django_lakebase.auth.credentials import CredentialCache
from django_lakebase.connect.connector import Connector
from django_lakebase.exceptions import LakebaseError
from tests.helpers.credential_cache import cache_of, cache_token
from tests.helpers.queries import fetch_value

ANOTHER = "projects/a/branches/b/endpoints/c"
NAMES = (
    "credential_issued",
    "credential_failed",
    "connection_opened",
    "connection_retried",
    "connection_failed",
    "session_reopened",
)


@pytest.fixture
def received():
    """Return a list to which every signal is appended with its arguments."""
    received = []

    def listener(name):
        def listen(sender, signal, **arguments):
            received.append((name, {"sender": sender, **arguments}))

        return listen

    listeners = {name: listener(name) for name in NAMES}
    for name, listen in listeners.items():
        getattr(signals, name).connect(listen)
    yield received
    for name, listen in listeners.items():
        getattr(signals, name).disconnect(listen)


def arguments_of(received, name):
    """Return the arguments of the signals called *name*."""
    return [arguments for other, arguments in received if other == name]


@pytest.mark.parametrize("pool", [False, {"min_size": 1, "max_size": 1}])
def test_connection_opened_signal_has_expiry_and_durations(new_wrapper, received, pool):
    wrapper = new_wrapper("observed", OPTIONS={"pool": pool})
    fetch_value(wrapper, "SELECT 1")

    [issued] = arguments_of(received, "credential_issued")
    [opened] = arguments_of(received, "connection_opened")
    assert issued["endpoint"] == opened["connect"].endpoint
    assert issued["expires_at"] == opened["expires_at"]
    assert opened["connect"].alias == "observed"
    assert opened["connect"].attempts == 1
    assert opened["connect"].seconds > issued["seconds"] > 0


def test_connection_retried_signal_is_sent_before_connection_opened(
    new_wrapper, local, received
):
    """With the failure that caused the retry, and the action."""
    wrapper = new_wrapper("observed")
    cache_token(wrapper, local.issue_token(local.facts["service_principal"], ttl=-5))

    fetch_value(wrapper, "SELECT 1")

    [retried] = arguments_of(received, "connection_retried")
    [opened] = arguments_of(received, "connection_opened")
    assert (retried["failure_id"], retried["action"]) == ("token-expired", "refresh")
    assert opened["connect"].attempts == 2


def test_connection_failed_signal_has_the_failure_id_of_the_error(
    new_wrapper, local, received
):
    with (
        local.fault("no-workspace-access"),
        pytest.raises(LakebaseError) as caught,
    ):
        fetch_value(new_wrapper("observed"), "SELECT 1")

    [of_credential] = arguments_of(received, "credential_failed")
    [of_connection] = arguments_of(received, "connection_failed")
    assert of_credential["failure_id"] == "workspace-access-missing"
    assert of_connection["failure_id"] == caught.value.failure_id
    assert "entitlement" in of_credential["reason"]


def test_signals_contain_no_secret(new_wrapper, local, received):
    wrapper = new_wrapper("observed")
    token = cache_token(
        wrapper, local.issue_token(local.facts["service_principal"], ttl=-5)
    ).token
    fetch_value(wrapper, "SELECT 1")
    with local.fault("secret-revoked"), contextlib.suppress(OperationalError):
        fetch_value(new_wrapper("else", OPTIONS={"endpoint": ANOTHER}), "SELECT 1")

    said = repr(received)

    assert len(received) >= 4
    assert token not in said
    assert "eyJ" not in said
    assert local.env["DATABRICKS_CLIENT_SECRET"] not in said


def test_sender_of_each_signal_is_a_class(new_wrapper, received):
    """As with Django's signals, so that receivers can choose."""
    fetch_value(new_wrapper("observed"), "SELECT 1")

    senders = {arguments["sender"] for _, arguments in received}
    assert senders == {Connector, CredentialCache}


def test_failing_signal_receiver_does_not_break_the_connection(new_wrapper, caplog):
    """Django logs its error."""

    def broken(**arguments):
        raise RuntimeError("the receiver failed")

    signals.connection_opened.connect(broken)
    try:
        assert fetch_value(new_wrapper(), "SELECT 1") == 1
    finally:
        signals.connection_opened.disconnect(broken)

    assert "the receiver failed" in caplog.text


def test_log_records_have_alias_endpoint_and_failure_id(new_wrapper, local, caplog):
    """For collectors of JSON logs."""
    caplog.set_level(logging.DEBUG, "django_lakebase")
    wrapper = new_wrapper("observed")
    cache_token(wrapper, local.issue_token(local.facts["service_principal"], ttl=-5))

    fetch_value(wrapper, "SELECT 1")

    ours = [r for r in caplog.records if r.name == "django_lakebase"]
    assert all(record.lakebase_endpoint for record in ours)
    [retry] = [r for r in ours if getattr(r, "lakebase_failure", "")]
    assert (retry.lakebase_alias, retry.levelname) == ("observed", "DEBUG")
    assert retry.lakebase_failure == "token-expired"


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
def test_child_process_starts_with_counters_at_zero(new_wrapper):
    wrapper = new_wrapper("counted")
    fetch_value(wrapper, "SELECT 1")
    cache = cache_of(wrapper)
    assert events.get_count("counted", "opened") >= 1
    assert cache.issued == 1

    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        count = events.get_count("counted", "opened") + cache.issued
        os.write(writing, str(count).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "0"
    os.waitpid(pid, 0)
