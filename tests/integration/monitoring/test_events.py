"""What is counted, logged and signalled."""

import contextlib
import logging
import os

import pytest
from django.db import OperationalError

from django_lakebase import events, signals
from django_lakebase.connection import LakebaseError
from tests.helpers.credentials import cache_token
from tests.helpers.wrappers import fetch_value

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
def heard():
    """Collect every signal with its arguments."""
    heard = []

    def listener(name):
        def listen(sender, signal, **arguments):
            heard.append((name, arguments))

        return listen

    listeners = {name: listener(name) for name in NAMES}
    for name, listen in listeners.items():
        getattr(signals, name).connect(listen)
    yield heard
    for name, listen in listeners.items():
        getattr(signals, name).disconnect(listen)


def named(heard, name):
    """Return the arguments of the signals called *name*."""
    return [arguments for other, arguments in heard if other == name]


@pytest.mark.parametrize("pool", [False, {"min_size": 1, "max_size": 1}])
def test_an_opened_connection_is_told(new_wrapper, heard, pool):
    """With the end of its credential, and how long both took."""
    wrapper = new_wrapper("told", OPTIONS={"pool": pool})
    fetch_value(wrapper, "SELECT 1")

    [issued] = named(heard, "credential_issued")
    [opened] = named(heard, "connection_opened")
    assert issued["endpoint"] == opened["connect"].endpoint
    assert issued["expires_at"] == opened["expires_at"]
    assert opened["connect"].alias == "told"
    assert opened["connect"].attempts == 1
    assert opened["connect"].seconds > issued["seconds"] > 0


def test_a_retry_is_told_before_the_connection(new_wrapper, local, heard):
    """With the failure that caused it and what follows."""
    wrapper = new_wrapper("told")
    cache_token(wrapper, local.issue(local.facts["service_principal"], ttl=-5))

    fetch_value(wrapper, "SELECT 1")

    [retried] = named(heard, "connection_retried")
    [opened] = named(heard, "connection_opened")
    assert (retried["failure_id"], retried["then"]) == ("token-expired", "renew")
    assert opened["connect"].attempts == 2


def test_a_failure_is_told_by_its_id(new_wrapper, local, heard):
    """The same id that the error has."""
    with (
        local.fault("no-workspace-access"),
        pytest.raises(LakebaseError) as caught,
    ):
        fetch_value(new_wrapper("told"), "SELECT 1")

    [of_credential] = named(heard, "credential_failed")
    [of_connection] = named(heard, "connection_failed")
    assert of_credential["failure_id"] == "workspace-access-missing"
    assert of_connection["failure_id"] == caught.value.failure_id
    assert "entitlement" in of_credential["reason"]


def test_no_signal_holds_a_secret(new_wrapper, local, heard):
    """Neither where all is well nor where it is not."""
    wrapper = new_wrapper("told")
    token = cache_token(
        wrapper, local.issue(local.facts["service_principal"], ttl=-5)
    ).token
    fetch_value(wrapper, "SELECT 1")
    with local.fault("secret-revoked"), contextlib.suppress(OperationalError):
        fetch_value(new_wrapper("else", OPTIONS={"endpoint": ANOTHER}), "SELECT 1")

    said = repr(heard)

    assert len(heard) >= 4
    assert token not in said
    assert "eyJ" not in said
    assert local.env["DATABRICKS_CLIENT_SECRET"] not in said


def test_a_receiver_that_fails_harms_nothing(new_wrapper, caplog):
    """Django logs its error, and the connection is there."""

    def broken(**arguments):
        raise RuntimeError("a dashboard's own trouble")

    signals.connection_opened.connect(broken)
    try:
        assert fetch_value(new_wrapper(), "SELECT 1") == 1
    finally:
        signals.connection_opened.disconnect(broken)

    assert "a dashboard's own trouble" in caplog.text


def test_records_carry_structure(new_wrapper, local, caplog):
    """A collector of JSON logs can tell alias, endpoint and failure apart."""
    caplog.set_level(logging.DEBUG, "django_lakebase")
    wrapper = new_wrapper("told")
    cache_token(wrapper, local.issue(local.facts["service_principal"], ttl=-5))

    fetch_value(wrapper, "SELECT 1")

    ours = [r for r in caplog.records if r.name == "django_lakebase"]
    assert all(record.lakebase_endpoint for record in ours)
    [retry] = [r for r in ours if getattr(r, "lakebase_failure", "")]
    assert (retry.lakebase_alias, retry.levelname) == ("told", "DEBUG")
    assert retry.lakebase_failure == "token-expired"


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
def test_a_child_counts_from_nothing(new_wrapper):
    """Its parent's connections are not its own."""
    fetch_value(new_wrapper("counted"), "SELECT 1")
    assert events.tally("counted").opened >= 1

    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, str(events.tally("counted").opened).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == "0"
    os.waitpid(pid, 0)
