"""Forks of a process with credentials and connections: gunicorn, Celery."""

import json
import os
import signal
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.db import ProgrammingError

from django_lakebase import process, signals
from django_lakebase.auth import host_check, registry, sdk
from django_lakebase.auth.workspace import Workspace
from django_lakebase.config.target import Login
from tests.helpers.credential_cache import cache_of, cache_token, cached_credential
from tests.helpers.engine_threads import join_threads
from tests.helpers.queries import fetch_value

CREDENTIALS = "/api/2.0/postgres/credentials"
PROJECTS = "/api/2.0/postgres/projects"

# Python 3.12 and newer warn, but servers fork nevertheless.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:This process .* is multi-threaded:DeprecationWarning"
    ),
    pytest.mark.every_environment,
]


def in_child(work):
    """Run *work* in a forked child, and return its result as text."""
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


def test_child_has_its_own_pool(new_wrapper):
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
def test_child_does_not_end_the_session_of_its_parent(new_wrapper, options):
    """Whether it uses or closes the connection that it has inherited."""
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


def test_child_cannot_use_the_transaction_of_its_parent(new_wrapper):
    """A query is an error there, and the parent's transaction continues."""
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


def test_child_uses_the_credential_of_its_parent(new_wrapper, local):
    wrapper = new_wrapper("forked")
    fetch_value(wrapper, "SELECT 1")
    wrapper.close()

    assert in_child(lambda: fetch_value(wrapper, "SELECT 1")) == "1"
    assert local.fetch_counters()["credentials_issued"] == 1


def test_child_uses_the_endpoint_that_its_parent_found(new_wrapper, local, monkeypatch):
    monkeypatch.delenv("ENDPOINT_NAME")
    wrapper = new_wrapper("forked")
    fetch_value(wrapper, "SELECT 1")
    wrapper.close()

    def work():
        cache_of(wrapper).drop(cached_credential(wrapper))
        return fetch_value(wrapper, "SELECT 1")

    assert in_child(work) == "1"
    counters = local.fetch_counters()
    assert counters["credentials_issued"] == 2
    assert counters["requests"][PROJECTS] == 1


def test_child_with_its_own_credential_checks_the_host_again(
    new_wrapper, local, monkeypatch
):
    """Each process warns once; one that needs no request otherwise makes none."""
    monkeypatch.setattr(host_check, "DELAY", 0.0)
    path = f"/api/2.0/postgres/{local.facts['endpoint']}"

    def checks():
        fetch_value(new_wrapper("forked"), "SELECT 1")
        join_threads("lakebase-host-check")
        return local.fetch_counters()["requests"][path]

    def with_own_credential():
        wrapper = new_wrapper("forked")
        cache_of(wrapper).drop(cached_credential(wrapper))
        return checks()

    assert checks() == 1
    assert in_child(checks) == "1"
    assert in_child(with_own_credential) == "2"


def test_child_can_fetch_a_credential_after_a_fork_during_a_request(new_wrapper, local):
    """It inherits no locked lock."""
    wrapper = new_wrapper("forked")
    fetch_value(wrapper, "SELECT 1")
    wrapper.close()
    cache = cache_of(wrapper)
    cache.drop(cached_credential(wrapper))
    with local.fault("api-slow", ms=500):
        busy = threading.Thread(target=cache.get)
        busy.start()
        while not local.fetch_counters()["requests"].get(CREDENTIALS):
            pass
        answer = in_child(lambda: fetch_value(wrapper, "SELECT 1"))
        busy.join()

    assert answer == "1"


def cache_due_credential(wrapper, local):
    """Put a valid credential that is past its refresh time into the cache."""
    token = local.issue_token(local.facts["service_principal"])
    credential = cache_token(wrapper, token, left=600)
    # A process that has a credential has imported the SDK.
    sdk.import_sdk()
    local.reset_counters()
    return credential


class LoginHandler(BaseHTTPRequestHandler):
    """Answers the requests of a login, over connections that stay open."""

    protocol_version = "HTTP/1.1"
    ports: set[int]

    def do_GET(self):
        origin = f"http://{self.headers['Host']}"
        self._answer(
            {
                "oidc_endpoint": f"{origin}/oidc",
                "authorization_endpoint": f"{origin}/oidc/v1/authorize",
                "token_endpoint": f"{origin}/oidc/v1/token",
            }
        )

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"access_token": "it", "token_type": "Bearer", "expires_in": 3600})

    def log_message(self, *_):
        """Log nothing."""

    def _answer(self, values):
        self.ports.add(self.client_address[1])
        body = json.dumps(values).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def login_server():
    """Yield a workspace that only logs in, and knows the ports of its clients."""
    handler = type("Handler", (LoginHandler,), {"ports": set()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_child_does_not_log_in_over_a_connection_of_its_parent(login_server):
    """Two children would read each other's responses: one would wait for its own."""
    ports = login_server.RequestHandlerClass.ports
    url = f"http://127.0.0.1:{login_server.server_port}"
    arguments = {"host": url, "client_id": "it", "client_secret": "secret"}
    workspace = Workspace(Login(key=url, name=url, arguments=arguments))
    workspace.log_in(timeout=10)
    parents = set(ports)
    ports.clear()

    answer = in_child(lambda: workspace.log_in(timeout=10))

    assert answer == f"oauth-m2m, {url}"
    assert parents
    assert not ports & parents


def test_twenty_forked_jobs_cost_one_refresh_in_the_parent(new_wrapper, local):
    wrapper = new_wrapper("forked")
    cache_due_credential(wrapper, local)
    threads = threading.active_count()

    jobs = [in_child(lambda: fetch_value(wrapper, "SELECT 1")) for _ in range(20)]

    counted = local.fetch_counters()
    assert jobs == ["1"] * 20
    assert counted["requests"].get(CREDENTIALS) == 1
    # A child that fetched a credential would have logged in, too.
    assert counted["requests"]["/oidc/v1/token"] == 1
    assert cache_of(wrapper).issued == 1
    assert threading.active_count() == threads


def test_expired_credential_is_refreshed_before_fork(new_wrapper, local):
    """As in a worker that was idle for an hour."""
    wrapper = new_wrapper("forked")
    cache_token(wrapper, "expired", left=-60)
    sdk.import_sdk()

    job = in_child(lambda: cache_of(wrapper).get_cached() is not None)

    assert job == "True"


def test_fork_before_the_first_credential_sends_no_request(new_wrapper, local):
    """Most processes that fork never use the database."""
    wrapper = new_wrapper("forked")
    registry.access_to(wrapper.get_target())

    in_child(lambda: None)

    assert local.fetch_counters()["requests"] == {}


def test_refresh_before_fork_opt_out_applies_to_aliases_with_the_same_login(
    new_wrapper, local
):
    """The parent sends no request; a child that needs a credential does."""
    wrapper = new_wrapper("forked")
    cache_due_credential(wrapper, local)
    other = new_wrapper("other", OPTIONS={"refresh_before_fork": False})
    assert cache_of(other) is cache_of(wrapper)

    in_child(lambda: None)

    assert local.fetch_counters()["requests"] == {}


def test_failed_refresh_before_fork_is_not_repeated(new_wrapper, local):
    """The children use the old credential while it is valid, without a request."""
    wrapper = new_wrapper("forked")
    cache_due_credential(wrapper, local)
    with local.fault("api-429", retry_after=60):
        jobs = [in_child(lambda: fetch_value(wrapper, "SELECT 1")) for _ in range(5)]

    assert jobs == ["1"] * 5
    assert local.fetch_counters()["requests"].get(CREDENTIALS) == 1


def test_fork_does_not_wait_for_a_silent_workspace(new_wrapper, local, monkeypatch):
    """The request continues in the parent."""
    monkeypatch.setattr(registry, "FORK_TIMEOUT", 0.2)
    wrapper = new_wrapper("forked")
    cache_due_credential(wrapper, local)
    cache = cache_of(wrapper)
    with local.fault("api-slow", ms=5000):
        jobs = [in_child(lambda: fetch_value(wrapper, "SELECT 1")) for _ in range(3)]
        is_still_asking = cache.is_refreshing()

    assert jobs == ["1"] * 3
    assert is_still_asking
    cache.join(15)
    assert local.fetch_counters()["requests"].get(CREDENTIALS) == 1
    assert cache.issued == 1


def test_receiver_of_credential_issued_may_fork(new_wrapper, local):
    """It runs in the thread for which a fork would wait."""
    wrapper = new_wrapper("forked")
    wrapper.inc_thread_sharing()
    cache_due_credential(wrapper, local)
    jobs = []

    def fork(**_):
        jobs.append(in_child(lambda: fetch_value(wrapper, "SELECT 1")))

    signals.credential_issued.connect(fork)
    try:
        cache_of(wrapper).get_cached()
        cache_of(wrapper).join(15)
    finally:
        signals.credential_issued.disconnect(fork)

    assert jobs == ["1"]
    assert cache_of(wrapper).issued == 1


@pytest.mark.parametrize("name", ["lock", "import_lock"])
def test_signal_handler_may_fork_while_its_thread_holds_a_lock(
    new_wrapper, local, name
):
    """Python runs handlers between any two steps of the main thread."""
    wrapper = new_wrapper("forked")
    cache_due_credential(wrapper, local)
    jobs = []

    def fork(*_):
        jobs.append(in_child(lambda: fetch_value(wrapper, "SELECT 1")))

    before = signal.signal(signal.SIGUSR1, fork)
    try:
        with getattr(process, name):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert jobs == ["1"]
    # The refresh that the fork started needs the lock to count its credential.
    cache_of(wrapper).join(15)
    assert cache_of(wrapper).issued == 1
