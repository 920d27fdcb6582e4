"""Endpoints: read-only ones, pooled names, sleep, and the words of each refusal."""

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
from tests.helpers.sessions import open_session
from tests.local.conftest import Api, Refused
from tests.local.test_command import alive

READ_ONLY = {"spec": {"endpoint_type": "ENDPOINT_TYPE_READ_ONLY"}}


@pytest.fixture
def replica(api, local):
    """Give a read-only endpoint of the default branch."""
    made = api.do(
        "POST", f"{local.facts['branch']}/endpoints?endpoint_id=ro", READ_ONLY
    )
    yield made
    if not api.is_gone(made["name"]):
        api.do("DELETE", made["name"])


def refusal(dial, **own):
    """Return what a refused login is told."""
    with pytest.raises(psycopg.OperationalError) as caught:
        dial(**own)
    return str(caught.value)


def pooled(local):
    """Return the pooled name of the endpoint."""
    label, _, domain = local.facts["host"].partition(".")
    return f"{label}-pooler.{domain}"


def read_only(local):
    """Return the read-only name of the endpoint."""
    label, _, domain = local.facts["host"].partition(".")
    return f"{label}-ro.{domain}"


def test_a_read_only_endpoint_follows_and_writes_nothing(local, replica, dial):
    """It is a hot standby of the branch's server."""
    status = replica["status"]
    owner = local.facts["owner"]
    with (
        dial(user=owner) as writer,
        dial(user=owner, host=status["hosts"]["host"]) as reader,
    ):
        writer.execute("CREATE TABLE followed AS SELECT 7 AS n")
        try:
            deadline = time.monotonic() + 60
            row = None
            while row is None and time.monotonic() < deadline:
                with contextlib.suppress(errors.UndefinedTable):
                    row = reader.execute("SELECT n FROM followed").fetchone()
            with pytest.raises(errors.ReadOnlySqlTransaction):
                reader.execute("INSERT INTO followed VALUES (1)")
        finally:
            writer.execute("DROP TABLE followed")

    assert row == (7,)
    assert status["endpoint_type"] == "ENDPOINT_TYPE_READ_ONLY"
    assert status["hosts"]["read_only_host"] == status["hosts"]["host"]


def test_a_credential_is_good_for_every_endpoint(api, local, replica, dial):
    """Tokens are the workspace's."""
    body = {"endpoint": replica["name"]}
    token = api.ask("POST", "credentials", body)["token"]

    dial(user=local.facts["owner"], password=token).close()


def test_readable_secondaries_have_a_name_of_their_own(api, local, dial):
    """While they are on; otherwise the gateway lets nobody through."""
    name = f"{local.facts['endpoint']}?update_mask=spec.group"
    group = {"min": 2, "max": 2, "enable_readable_secondaries": True}
    before = refusal(dial, host=read_only(local))

    shown = api.do("PATCH", name, {"spec": {"group": group}})
    try:
        with dial(host=shown["status"]["hosts"]["read_only_host"]) as session:
            row = session.execute("SELECT pg_is_in_recovery()").fetchone()
    finally:
        api.do("PATCH", name, {"spec": {"group": {"min": 1, "max": 1}}})

    assert "disabling readable secondaries" in before
    assert row == (True,)
    assert "External authorization failed" in refusal(dial, host=read_only(local))


def test_the_pooler_takes_no_tokens(local, dial):
    """It asks for a native password, and finds none."""
    assert "SASL authentication failed" in refusal(dial, host=pooled(local))


@pytest.mark.skipif(find_pgbouncer() is None, reason="PgBouncer is not installed")
def test_the_pooler_is_pgbouncer(local, dial):
    """In transaction mode, for native passwords."""
    facts = local.facts
    native = {"user": facts["native_user"], "password": facts["native_password"]}
    with dial(host=pooled(local), **native) as session:
        row = session.execute("SELECT current_user").fetchone()
        backends = set()
        with dial(host=pooled(local), **native) as other:
            for connection in (session, other, session):
                [backend] = connection.execute("SELECT pg_backend_pid()").fetchone()
                backends.add(backend)

    assert row == (facts["native_user"],)
    assert len(backends) == 1


@pytest.mark.skipif(find_pgbouncer() is None, reason="PgBouncer is not installed")
@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are found in /proc")
def test_pooler_that_was_killed_is_started_again(local, dial):
    """The socket that it left is not taken for one that accepts connections."""
    facts = local.facts
    native = {"user": facts["native_user"], "password": facts["native_password"]}
    dial(host=pooled(local), **native).close()
    threads = Path(f"/proc/{facts['pid']}/task").glob("*/children")
    children = [pid for thread in threads for pid in thread.read_text().split()]
    [pooler] = [
        pid
        for pid in children
        if "pgbouncer" in Path(f"/proc/{pid}/cmdline").read_text()
    ]

    os.kill(int(pooler), signal.SIGKILL)
    while alive(pooler):
        pass

    dial(host=pooled(local), **native).close()


def test_native_passwords_at_the_pooled_name(local, dial):
    """They are right there or not, with PgBouncer or without."""
    facts = local.facts
    native = {"user": facts["native_user"], "host": pooled(local)}

    dial(**native, password=facts["native_password"]).close()

    assert "authentication failed" in refusal(dial, **native, password="wrong")


def test_native_login_can_be_switched_off(api, local, dial):
    """Then a password is taken for a token."""
    facts = local.facts
    native = {"user": facts["native_user"], "password": facts["native_password"]}
    name = f"{facts['project']}?update_mask=spec.enable_pg_native_login"

    api.do("PATCH", name, {"spec": {"enable_pg_native_login": False}})
    try:
        assert "not a valid JWT encoding" in refusal(dial, **native)
    finally:
        api.do("PATCH", name, {"spec": {"enable_pg_native_login": True}})
    dial(**native).close()


def test_a_disabled_endpoint_ends_its_sessions_and_takes_none(api, local, dial):
    """Until it is enabled through the API: no login wakes it."""
    name = f"{local.facts['endpoint']}?update_mask=spec.disabled"
    session = dial()

    shown = api.do("PATCH", name, {"spec": {"disabled": True}})
    try:
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        said = refusal(dial)
    finally:
        api.do("PATCH", name, {"spec": {"disabled": False}})

    assert shown["status"]["current_state"] == "IDLE"
    assert "Control plane request failed: endpoint is disabled" in said
    dial().close()


def test_settings_of_the_server(api, local, dial):
    """Are set where PostgreSQL knows them; else the operation fails."""
    name = f"{local.facts['endpoint']}?update_mask=spec.settings"

    def change(**settings):
        body = {"spec": {"settings": {"pg_settings": settings}}}
        return api.do("PATCH", name, body)

    changed = change(work_mem="7MB")
    with dial() as session:
        shown = session.execute("SHOW work_mem").fetchone()
    with pytest.raises(Refused, match="unrecognized configuration parameter"):
        change(no_such="1")
    change()

    assert changed["status"]["settings"]["pg_settings"] == {"work_mem": "7MB"}
    assert shown == ("7MB",)


@pytest.mark.parametrize(
    ("query", "spec", "said"),
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
def test_endpoints_that_cannot_be_made(api, local, query, spec, said):
    """Nothing is begun."""
    with pytest.raises(Refused, match=said):
        api.do("POST", f"{local.facts['branch']}/endpoints?{query}", {"spec": spec})


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("suspend_timeout_duration", "5s", "between 60s and 604800s"),
        ("disabled", "yes", "must be true or false"),
        ("autoscaling_limit_min_cu", 4, "must not exceed the maximum"),
        ("autoscaling_limit_max_cu", "x", "must be a number"),
        ("group", {"min": 2, "max": 3}, "must equal"),
    ],
)
def test_changes_that_cannot_be_made(api, local, field, value, said):
    """Nothing is changed."""
    path = f"{local.facts['endpoint']}?update_mask=spec.{field}"

    with pytest.raises(Refused, match=said):
        api.do("PATCH", path, {"spec": {field: value}})

    assert api.ask("GET", local.facts["endpoint"])["status"]["disabled"] is False


def test_the_read_write_endpoint_goes_with_its_branch(api, local):
    """Not alone."""
    with pytest.raises(Refused, match="Read-write endpoints cannot be deleted"):
        api.do("DELETE", local.facts["endpoint"])


def test_an_idle_endpoint_goes_to_sleep_and_wakes():
    """Its sessions end; the next login takes a moment."""
    with LocalLakebase.start("--suspend-after", "2") as own:
        api = Api(own.url, own.facts["owner_token"])

        def state():
            shown = api.ask("GET", own.facts["endpoint"])
            return shown["status"]["current_state"]

        def at_work(session):
            # The statement lasts until it has been given all rows.
            return session.cursor().copy("COPY work FROM STDIN")

        session = open_session(own)
        session.execute("CREATE TABLE work (line text)")
        started_at = time.monotonic()
        with at_work(session):
            while time.monotonic() < started_at + 4:
                assert state() == "ACTIVE"
            idle_from = time.monotonic()
        while state() == "ACTIVE":
            assert time.monotonic() < idle_from + 60
        assert time.monotonic() >= idle_from + 2
        with session, pytest.raises(errors.AdminShutdown):
            session.execute("SELECT pg_sleep(20)")

        with open_session(own) as session, at_work(session):
            assert state() == "ACTIVE"


def test_data_holds_branches_and_replicas():
    """They are there again at the next start."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        with LocalLakebase.start("--data", f"{folder}/kept") as own:
            api = Api(own.url, own.facts["owner_token"])
            branch = api.do(
                "POST",
                f"{own.facts['project']}/branches?branch_id=kept",
                {"spec": {"no_expiry": True}},
            )["name"]
            replica = api.do("POST", f"{branch}/endpoints?endpoint_id=ro", READ_ONLY)
            own.set_fault("role-missing")
        with LocalLakebase.start("--data", f"{folder}/kept") as own:
            host = replica["status"]["hosts"]["host"]
            with open_session(own, host=host) as session:
                row = session.execute("SELECT pg_is_in_recovery()").fetchone()
            # A fault does not outlive its run.
            open_session(own).close()

    assert row == (True,)


@pytest.mark.parametrize(
    ("dialect", "expired", "missing", "other"),
    [
        (
            "likely",
            "JWT token has expired",
            'role "nobody" does not exist',
            "no role security label",
        ),
        (
            "proxy",
            "JWT token has expired",
            "password authentication failed for user 'nobody'",
            "password authentication failed for user",
        ),
        (
            "postgres",
            "Failed to decode token",
            'role "nobody" does not exist',
            "no role security label",
        ),
    ],
)
def test_dialects(dialect, expired, missing, other):
    """Where nobody knows which layer answers, each of them can be had."""
    with LocalLakebase.start("--dialect", dialect) as own:
        facts = own.facts

        def dial(**params):
            return open_session(own, **params)

        old = own.issue(facts["service_principal"], ttl=-5)
        assert expired in refusal(dial, password=old)
        assert missing in refusal(dial, user="nobody")
        others = own.issue(facts["owner"])
        assert other in refusal(dial, password=others)
