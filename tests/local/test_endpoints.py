"""Endpoints: read-only and pooled hosts, changes, suspension, and login errors."""

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from django_lakebase.local.client import LocalLakebase
from django_lakebase.local.gateway.pgbouncer import find_pgbouncer
from tests.helpers.plain_psycopg import open_session
from tests.local.processes import get_children, wait_until_ended
from tests.local.rest_api import ApiError, RestApi

READ_ONLY = {"spec": {"endpoint_type": "ENDPOINT_TYPE_READ_ONLY"}}


@pytest.fixture
def replica(api, local):
    """Create a read-only endpoint of the default branch and delete it afterwards."""
    endpoint = api.run_operation(
        "POST", f"{local.facts['branch']}/endpoints?endpoint_id=ro", READ_ONLY
    )
    yield endpoint
    if api.exists(endpoint["name"]):
        api.run_operation("DELETE", endpoint["name"])


@pytest.fixture
def pooled_host(local):
    """Return the pooled host name of the default endpoint."""
    label, _, domain = local.facts["host"].partition(".")
    return f"{label}-pooler.{domain}"


@pytest.fixture
def read_only_host(local):
    """Return the read-only host name of the default endpoint."""
    label, _, domain = local.facts["host"].partition(".")
    return f"{label}-ro.{domain}"


def test_read_only_endpoint_replicates_and_rejects_writes(local, replica, connect):
    status = replica["status"]
    owner = local.facts["owner"]
    with (
        connect(user=owner) as writer,
        connect(user=owner, host=status["hosts"]["host"]) as reader,
    ):
        writer.execute("CREATE TABLE replicated AS SELECT 7 AS n")
        try:
            deadline = time.monotonic() + 60
            row = None
            while row is None and time.monotonic() < deadline:
                with contextlib.suppress(errors.UndefinedTable):
                    row = reader.execute("SELECT n FROM replicated").fetchone()
            with pytest.raises(errors.ReadOnlySqlTransaction):
                reader.execute("INSERT INTO replicated VALUES (1)")
        finally:
            writer.execute("DROP TABLE replicated")

    assert row == (7,)
    assert status["endpoint_type"] == "ENDPOINT_TYPE_READ_ONLY"
    assert status["hosts"]["read_only_host"] == status["hosts"]["host"]


def test_credential_of_one_endpoint_is_valid_at_another(api, local, replica, connect):
    """Tokens are valid for the whole workspace."""
    body = {"endpoint": replica["name"]}
    token = api.request("POST", "credentials", body)["token"]

    connect(user=local.facts["owner"], password=token).close()


def test_read_only_host_accepts_logins_only_with_readable_secondaries(
    api, local, connect, login_error, read_only_host
):
    name = f"{local.facts['endpoint']}?update_mask=spec.group"
    group = {"min": 2, "max": 2, "enable_readable_secondaries": True}
    error_before = login_error(host=read_only_host)

    changed = api.run_operation("PATCH", name, {"spec": {"group": group}})
    try:
        with connect(host=changed["status"]["hosts"]["read_only_host"]) as session:
            row = session.execute("SELECT pg_is_in_recovery()").fetchone()
    finally:
        api.run_operation("PATCH", name, {"spec": {"group": {"min": 1, "max": 1}}})

    assert "disabling readable secondaries" in error_before
    assert row == (True,)
    assert "External authorization failed" in login_error(host=read_only_host)


def test_pooled_host_rejects_tokens(login_error, pooled_host):
    """It accepts only native passwords."""
    assert "SASL authentication failed" in login_error(host=pooled_host)


@pytest.mark.skipif(find_pgbouncer() is None, reason="PgBouncer is not installed")
def test_pooled_sessions_share_a_backend_between_transactions(
    connect, pooled_host, native_login
):
    """PgBouncer runs in transaction mode."""
    with connect(host=pooled_host, **native_login) as session:
        row = session.execute("SELECT current_user").fetchone()
        backends = set()
        with connect(host=pooled_host, **native_login) as other:
            for connection in (session, other, session):
                [backend] = connection.execute("SELECT pg_backend_pid()").fetchone()
                backends.add(backend)

    assert row == (native_login["user"],)
    assert len(backends) == 1


@pytest.mark.skipif(find_pgbouncer() is None, reason="PgBouncer is not installed")
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are found in /proc")
def test_killed_pgbouncer_is_restarted_at_the_next_login(
    local, connect, pooled_host, native_login
):
    """The killed process leaves its socket file, which must not count as ready."""
    connect(host=pooled_host, **native_login).close()
    [pgbouncer] = [
        pid
        for pid in get_children(local.facts["pid"])
        if "pgbouncer" in Path(f"/proc/{pid}/cmdline").read_text()
    ]

    os.kill(pgbouncer, signal.SIGKILL)
    wait_until_ended(pgbouncer)

    connect(host=pooled_host, **native_login).close()


def test_pooled_host_checks_native_passwords(
    connect, login_error, pooled_host, native_login
):
    """Without PgBouncer, PostgreSQL itself checks them."""
    connect(host=pooled_host, **native_login).close()

    wrong = {**native_login, "password": "wrong"}
    assert "authentication failed" in login_error(host=pooled_host, **wrong)


def test_password_is_checked_as_a_token_while_native_login_is_disabled(
    api, local, connect, login_error, native_login
):
    name = f"{local.facts['project']}?update_mask=spec.enable_pg_native_login"

    api.run_operation("PATCH", name, {"spec": {"enable_pg_native_login": False}})
    try:
        assert "not a valid JWT encoding" in login_error(**native_login)
    finally:
        api.run_operation("PATCH", name, {"spec": {"enable_pg_native_login": True}})
    connect(**native_login).close()


def test_disabling_an_endpoint_ends_its_sessions_and_rejects_logins(
    api, local, connect, login_error
):
    """Only the API enables it again; a login does not."""
    name = f"{local.facts['endpoint']}?update_mask=spec.disabled"
    session = connect()

    disabled = api.run_operation("PATCH", name, {"spec": {"disabled": True}})
    try:
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        error = login_error()
    finally:
        api.run_operation("PATCH", name, {"spec": {"disabled": False}})

    assert disabled["status"]["current_state"] == "IDLE"
    assert "Control plane request failed: endpoint is disabled" in error
    connect().close()


def test_pg_settings_are_applied_and_unknown_ones_fail(api, local, connect):
    name = f"{local.facts['endpoint']}?update_mask=spec.settings"

    def change(**settings):
        body = {"spec": {"settings": {"pg_settings": settings}}}
        return api.run_operation("PATCH", name, body)

    changed = change(work_mem="7MB")
    with connect() as session:
        work_mem = session.execute("SHOW work_mem").fetchone()
    with pytest.raises(ApiError, match="unrecognized configuration parameter"):
        change(no_such="1")
    change()

    assert changed["status"]["settings"]["pg_settings"] == {"work_mem": "7MB"}
    assert work_mem == ("7MB",)


@pytest.mark.parametrize(
    ("query", "spec", "message"),
    [
        ("", {}, "'endpoint_id' is required"),
        ("endpoint_id=a", {}, "endpoint_type' is required"),
        ("endpoint_id=a", {"endpoint_type": "FAST"}, "is 'FAST'"),
        (
            "endpoint_id=a",
            {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE"},
            "read_write endpoint already exists",
        ),
        (
            "endpoint_id=primary",
            {"endpoint_type": "ENDPOINT_TYPE_READ_WRITE"},
            "endpoint with such id already exists",
        ),
    ],
)
def test_invalid_endpoint_is_rejected(api, local, query, spec, message):
    path = f"{local.facts['branch']}/endpoints?{query}"

    with pytest.raises(ApiError, match=message):
        api.run_operation("POST", path, {"spec": spec})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("suspend_timeout_duration", "5s", "between 60s and 604800s"),
        ("disabled", "yes", "must be true or false"),
        ("autoscaling_limit_min_cu", 4, "must not exceed the maximum"),
        ("autoscaling_limit_max_cu", "x", "must be a number"),
        ("group", {"min": 2, "max": 3}, "must equal"),
    ],
)
def test_invalid_change_of_an_endpoint_is_rejected(api, local, field, value, message):
    path = f"{local.facts['endpoint']}?update_mask=spec.{field}"

    with pytest.raises(ApiError, match=message):
        api.run_operation("PATCH", path, {"spec": {field: value}})

    assert api.request("GET", local.facts["endpoint"])["status"]["disabled"] is False


def test_read_write_endpoint_cannot_be_deleted(api, local):
    """It is deleted together with its branch."""
    with pytest.raises(ApiError, match="Read-write endpoints cannot be deleted"):
        api.run_operation("DELETE", local.facts["endpoint"])


def test_endpoint_is_suspended_only_when_idle_and_wakes_at_the_next_login():
    with LocalLakebase.start("--suspend-after", "2") as emulator:
        api = RestApi(emulator.url, emulator.facts["owner_token"])

        def get_state():
            endpoint = api.request("GET", emulator.facts["endpoint"])
            return endpoint["status"]["current_state"]

        def run_copy(session):
            # The statement runs until the client has sent all rows.
            return session.cursor().copy("COPY work FROM STDIN")

        session = open_session(emulator)
        session.execute("CREATE TABLE work (line text)")
        started_at = time.monotonic()
        with run_copy(session):
            while time.monotonic() < started_at + 4:
                assert get_state() == "ACTIVE"
            idle_at = time.monotonic()
        while get_state() == "ACTIVE":
            assert time.monotonic() < idle_at + 60
        assert time.monotonic() >= idle_at + 2
        with session, pytest.raises(errors.AdminShutdown):
            session.execute("SELECT pg_sleep(20)")

        with open_session(emulator) as session, run_copy(session):
            assert get_state() == "ACTIVE"


def test_data_option_keeps_branches_and_replicas_but_no_faults():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with LocalLakebase.start("--data", f"{folder}/kept data") as emulator:
            api = RestApi(emulator.url, emulator.facts["owner_token"])
            branch = api.run_operation(
                "POST",
                f"{emulator.facts['project']}/branches?branch_id=kept",
                {"spec": {"no_expiry": True}},
            )["name"]
            replica = api.run_operation(
                "POST", f"{branch}/endpoints?endpoint_id=ro", READ_ONLY
            )
            emulator.set_fault("role-missing")
        with LocalLakebase.start("--data", f"{folder}/kept data") as emulator:
            host = replica["status"]["hosts"]["host"]
            with open_session(emulator, host=host) as session:
                row = session.execute("SELECT pg_is_in_recovery()").fetchone()
                # The path with a space is part of the standby's primary_conninfo.
                deadline = time.monotonic() + 60
                receiver = "SELECT 1 FROM pg_stat_wal_receiver"
                while not session.execute(receiver).fetchone():
                    assert time.monotonic() < deadline
            # The fault ended with the first run, so the role exists again.
            open_session(emulator).close()

    assert row == (True,)


@pytest.mark.parametrize(
    ("dialect", "expired_token", "missing_role", "wrong_identity"),
    [
        (
            "likely",
            "JWT token has expired",
            'role "stranger" does not exist',
            "no role security label",
        ),
        (
            "proxy",
            "JWT token has expired",
            "password authentication failed for user 'stranger'",
            "password authentication failed for user",
        ),
        (
            "postgres",
            "Failed to decode token",
            'role "stranger" does not exist',
            "no role security label",
        ),
    ],
)
def test_dialect_selects_the_texts_of_login_errors(
    dialect, expired_token, missing_role, wrong_identity
):
    """Where the layer of the service that answers is not known, --dialect decides."""
    with LocalLakebase.start("--dialect", dialect) as emulator:
        facts = emulator.facts
        expired = emulator.issue_token(facts["service_principal"], ttl=-5)
        with pytest.raises(psycopg.OperationalError, match=expired_token):
            open_session(emulator, password=expired)
        with pytest.raises(psycopg.OperationalError, match=missing_role):
            open_session(emulator, user="stranger")
        token_of_owner = emulator.issue_token(facts["owner"])
        with pytest.raises(psycopg.OperationalError, match=wrong_identity):
            open_session(emulator, password=token_of_owner)
