"""check_readiness(), for health endpoints."""

import contextlib
import json
import os
import re
import socket
import threading
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.test import RequestFactory
from django.utils.connection import ConnectionDoesNotExist

import django_lakebase
from django_lakebase import readiness
from django_lakebase.readiness import check_readiness
from tests.helpers.app_servers import wait_until_disconnected
from tests.helpers.credential_cache import cached_credential
from tests.helpers.engine_threads import join_threads
from tests.helpers.local_settings import settings_for

CREDENTIALS = "/api/2.0/postgres/credentials"
PAGE = Path(django_lakebase.__file__).parent.parent / "docs/howto/observe.md"
# Long enough for a busy machine; only a check that must time out takes it.
ENOUGH = 30.0


@pytest.fixture(autouse=True)
def checks(local, monkeypatch):
    """Start without checks of earlier tests, and reuse no result."""
    monkeypatch.setattr(readiness, "MAX_AGE", 0.0)
    readiness._checks.clear()  # noqa: SLF001
    connections["default"].close()
    wait_until_disconnected(local)
    yield
    join_threads("lakebase-workspace")


@pytest.fixture
def aliases(new_wrapper, local, monkeypatch):
    """Yield a function that adds the alias "other" with the given settings."""

    def make(**settings):
        own = settings_for(local)
        own["OPTIONS"].update(settings.pop("OPTIONS", {}))
        wrapper = new_wrapper("other", **{**own, **settings})
        monkeypatch.setitem(connections.settings, "other", wrapper.settings_dict)
        return wrapper

    yield make
    if "other" in connections.settings:
        del connections["other"]


def statuses_of(result):
    return [(step.id, str(step.status)) for step in result.steps]


def test_process_that_can_connect_is_ready(local):
    result = check_readiness(timeout=ENOUGH)

    assert result.is_ready
    assert result.as_dict() == {
        "alias": "default",
        "is_ready": True,
        "steps": [
            {"id": step, "status": "ok"}
            for step in ("settings", "credential", "login", "role")
        ],
    }
    assert local.fetch_counters()["logins"] == 1


def test_check_leaves_no_connection_open(local):
    """Neither its own nor Django's of this thread."""
    check_readiness(timeout=ENOUGH)

    assert connections["default"].connection is None
    wait_until_disconnected(local)


def test_check_with_a_cached_credential_sends_no_request(local):
    check_readiness(timeout=ENOUGH)
    local.reset_counters()

    assert check_readiness(timeout=ENOUGH).is_ready
    assert local.fetch_counters()["requests"] == {}
    assert local.fetch_counters()["logins"] == 1


@pytest.mark.parametrize(
    ("fault", "options", "failing"),
    [
        ("no-workspace-access", {}, "credential"),
        ("endpoint-disabled", {}, "login"),
        ("reject-logins", {"message": "jwt"}, "login"),
        ("role-missing", {}, "login"),
    ],
)
def test_failed_step_is_named_and_later_steps_are_skipped(
    local, fault, options, failing
):
    with local.fault(fault, **options):
        result = check_readiness(timeout=ENOUGH)

    at = readiness.STEPS.index(failing)
    assert not result.is_ready
    assert [status for _, status in statuses_of(result)] == (
        ["ok"] * at + ["fail"] + ["skipped"] * (len(readiness.STEPS) - at - 1)
    )


def test_cached_credential_keeps_a_process_ready_without_the_workspace(local):
    check_readiness(timeout=ENOUGH)

    with local.fault("api-down"):
        assert check_readiness(timeout=ENOUGH).is_ready


def test_silent_workspace_fails_the_step_that_waits_for_it(local):
    with local.fault("api-hang"):
        result = check_readiness(timeout=0.5)

    assert statuses_of(result)[1] == ("credential", "fail")
    assert "no answer" in result.steps[1].detail
    assert not result.is_ready


def test_silent_server_fails_the_login_within_the_time_limit(aliases, local):
    """The attempt to connect takes longer than the caller waits."""
    host = local.facts["host"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        aliases(HOST=host, PORT=port, USER=local.facts["service_principal"])
        check_readiness(timeout=ENOUGH)
        result = check_readiness("other", timeout=0.5)

    assert statuses_of(result) == [
        ("settings", "ok"),
        ("credential", "ok"),
        ("login", "fail"),
        ("role", "skipped"),
    ]
    assert "no answer" in result.steps[2].detail


@pytest.fixture
def falling_silent(aliases, local):
    """
    Make the alias "other" connect through a relay that stops relaying.

    Yield a list with the number of messages that the server may still send, and a
    semaphore that each direction of a connection releases at its end.
    """
    sockets: list[socket.socket] = []
    budget = [0]

    def relay(source, target, *, is_limited):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_limited and not budget[0]:
                    continue
                budget[0] -= is_limited
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        ended.release()

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(
                    ("127.0.0.1", int(local.env["PGPORT"]))
                )
                sockets.extend((client, server))
                for pair, is_limited in (((client, server), 0), ((server, client), 1)):
                    threading.Thread(
                        target=relay,
                        args=pair,
                        kwargs={"is_limited": is_limited},
                        daemon=True,
                    ).start()

    ended = threading.Semaphore(0)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=accept, daemon=True).start()
    facts = local.facts
    aliases(
        HOST=facts["host"],
        PORT=str(listener.getsockname()[1]),
        USER=facts["service_principal"],
    )
    yield budget, ended
    for end in (listener, *sockets):
        # close() alone would not end a recv() in another thread.
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def test_server_that_falls_silent_after_the_login_keeps_no_thread(falling_silent):
    """Nor a socket: psycopg itself sets no time limit on queries."""
    budget, ended = falling_silent
    check_readiness(timeout=ENOUGH)
    budget[0] = 1000
    assert check_readiness("other", timeout=ENOUGH).is_ready
    used = 1000 - budget[0]
    assert [ended.acquire(timeout=ENOUGH) for _ in range(2)] == [True, True]

    for left in (used - 2, used - 1):
        budget[0] = left
        result = check_readiness("other", timeout=1.0)

        # With fewer and larger messages than before, nothing is missing.
        failed = [step.detail for step in result.steps if step.status == "fail"]
        assert all("no answer" in detail for detail in failed)
        # The engine has closed its end, and so the server has closed the other.
        assert [ended.acquire(timeout=ENOUGH) for _ in range(2)] == [True, True]
        join_threads("lakebase-workspace")


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), 1e12])
def test_invalid_time_limit_is_an_error_of_the_caller(timeout):
    with pytest.raises(ValueError, match="timeout is"):
        check_readiness(timeout=timeout)


def test_different_time_limits_do_not_use_more_and_more_memory(local):
    for number in range(10):
        check_readiness(timeout=ENOUGH + number)

    assert len(readiness._checks) == 1  # noqa: SLF001


def test_later_check_succeeds_after_one_that_timed_out(local):
    with local.fault("api-hang"):
        assert not check_readiness(timeout=2.0).is_ready
    join_threads("lakebase-workspace")

    assert check_readiness(timeout=2.0).is_ready


def test_retries_end_within_the_time_limit(local):
    """The details then say what has failed, however long the credential has taken."""
    with local.fault("api-slow", ms=500), local.fault("server-starting", seconds=0):
        result = check_readiness(timeout=4.0)

    assert statuses_of(result)[2] == ("login", "fail")
    assert "no answer" not in result.steps[2].detail


def test_concurrent_callers_share_one_check(local):
    """Its request for a credential is slow until all have come."""
    results = []

    def probe():
        results.append(check_readiness(timeout=ENOUGH))

    threads = [threading.Thread(target=probe) for _ in range(8)]
    with local.fault("api-slow", ms=2000):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [result.is_ready for result in results] == [True] * 8
    assert local.fetch_counters()["logins"] == 1


def test_result_is_reused_for_a_moment(local, monkeypatch):
    """So that visitors cannot open a connection with each request."""
    monkeypatch.setattr(readiness, "MAX_AGE", 3600.0)

    for _ in range(3):
        assert check_readiness(timeout=ENOUGH).is_ready

    assert local.fetch_counters()["logins"] == 1


def test_check_does_not_use_the_pool(aliases, local):
    """A pool that is exhausted delays requests; it is not a failure to connect."""
    pooled = aliases(OPTIONS={"pool": {"min_size": 1, "max_size": 1}})
    with pooled.cursor():
        assert check_readiness("other", timeout=ENOUGH).is_ready
        assert pooled.pool_stats()["requests_num"] == 1


def test_role_that_cannot_be_assumed_is_a_failed_step(aliases):
    aliases(OPTIONS={"assume_role": "missing_role"})

    result = check_readiness("other", timeout=ENOUGH)

    assert statuses_of(result)[-1] == ("role", "fail")


def test_login_with_a_password_is_ready_without_a_credential(aliases, local):
    facts = local.facts
    aliases(
        HOST=facts["host"],
        USER=facts["native_user"],
        PASSWORD=facts["native_password"],
        OPTIONS={"workspace": None, "endpoint": None},
    )

    result = check_readiness("other", timeout=ENOUGH)

    assert result.is_ready
    assert statuses_of(result)[1] == ("credential", "skipped")


def test_invalid_settings_are_a_failed_step(aliases):
    aliases(PORT="0")

    result = check_readiness("other", timeout=ENOUGH)

    assert statuses_of(result)[0] == ("settings", "fail")


def test_alias_of_another_engine_raises_an_error(new_wrapper, monkeypatch):
    sqlite = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3"}
    monkeypatch.setitem(connections.settings, "other", sqlite)
    try:
        with pytest.raises(TypeError, match='"other"'):
            check_readiness("other")
    finally:
        del connections["other"]
    with pytest.raises(ConnectionDoesNotExist):
        check_readiness("no-such-alias")


@pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
def test_forked_child_makes_its_own_check(local, monkeypatch):
    monkeypatch.setattr(readiness, "MAX_AGE", 3600.0)
    check_readiness(timeout=ENOUGH)
    join_threads("lakebase-workspace")
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        answer = b"error"
        try:
            answer = str(check_readiness(timeout=ENOUGH).is_ready).encode()
        finally:
            os.write(writing, answer)
            os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reading, 100) == b"True"
    assert local.fetch_counters()["logins"] == 2
    for end in (reading, writing):
        os.close(end)


def test_details_are_for_people_and_contain_no_secret(aliases, local):
    secrets = [local.env["DATABRICKS_CLIENT_SECRET"], local.facts["owner_token"]]
    shown = []
    healthy = check_readiness(timeout=ENOUGH)
    secrets.append(cached_credential(connections["default"]).token)
    shown.append(healthy)
    for fault in ("reject-logins", "role-missing", "endpoint-disabled"):
        with local.fault(fault):
            shown.append(check_readiness(timeout=ENOUGH))
    aliases(OPTIONS={"endpoint": "no-endpoint"})
    shown.append(check_readiness("other", timeout=ENOUGH))
    texts = [json.dumps(result.as_dict(details=True)) for result in shown]

    assert local.facts["service_principal"] in texts[0]
    assert all('"hint"' in text for text in texts)
    for text in texts:
        assert "eyJ" not in text
        assert [secret for secret in secrets if secret in text] == []


def test_public_result_names_no_host_user_or_database(local):
    facts = local.facts
    with local.fault("role-missing"):
        text = json.dumps(check_readiness(timeout=ENOUGH).as_dict())

    names = [facts["host"], facts["service_principal"], facts["database"]]
    assert [name for name in names if name in text] == []


def test_check_works_in_an_async_view(local):
    check = sync_to_async(check_readiness, thread_sensitive=False)

    assert async_to_sync(check)(timeout=ENOUGH).is_ready


@pytest.mark.parametrize(("fault", "status"), [(None, 200), ("role-missing", 503)])
def test_view_of_the_documentation_returns_the_status(local, fault, status):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    [code] = [block for block in blocks if "check_readiness" in block]
    names: dict[str, object] = {}
    exec(code, names)  # noqa: S102 - of the documentation.
    view = names["ready"]
    assert callable(view)
    if fault:
        local.set_fault(fault)

    response = view(RequestFactory().get("/ready/"))

    assert response.status_code == status
    assert json.loads(response.content)["is_ready"] is (status == 200)
