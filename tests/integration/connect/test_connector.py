"""Connection attempts: parameters, probes, retries and the errors they end with."""

import copy
import select
import socketserver
import threading
import time
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from django_lakebase.auth import strategies
from django_lakebase.auth.registry import access_to
from django_lakebase.auth.singleflight import CallError
from django_lakebase.connect import connector
from django_lakebase.connect.connector import Connector
from django_lakebase.connect.liveness import is_readable
from django_lakebase.connect.retry import RetryPolicy
from django_lakebase.exceptions import LakebaseError
from tests.helpers.credential_cache import cache_of, cache_token, forget_credentials
from tests.helpers.queries import fetch_value


def test_copy_of_a_lazy_password_is_the_same_object(new_wrapper):
    """Copied settings and parameters use the same cache."""
    password = new_wrapper().get_connection_params()["password"]

    assert copy.copy(password) is password
    assert copy.deepcopy({"password": password})["password"] is password


def test_socket_is_checked_where_select_has_no_poll(new_wrapper, monkeypatch):
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")
    monkeypatch.delattr(select, "poll")

    assert not is_readable(wrapper.connection)


def test_moved_endpoint_error_names_the_old_host_while_the_workspace_is_down(
    new_wrapper, local, monkeypatch
):
    monkeypatch.delenv("PGHOST")
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")
    wrapper.close()

    with (
        local.fault("endpoint-moved"),
        local.fault("api-down"),
        pytest.raises(LakebaseError) as caught,
    ):
        fetch_value(wrapper, "SELECT 1")

    assert caught.value.failure_id == "wrong-host"
    assert local.facts["host"] in str(caught.value)


def test_failed_probe_raises_the_unknown_rejection(new_wrapper, local):
    """And not the error of the probe."""
    wrapper = new_wrapper(OPTIONS={"connect_budget": 1})
    kept = cache_token(wrapper, local.issue_token(local.facts["service_principal"]))

    with (
        local.fault("reject-logins", message="unknown"),
        local.fault("api-down"),
        pytest.raises(LakebaseError) as caught,
    ):
        fetch_value(wrapper, "SELECT 1")

    assert caught.value.failure_id == "unexplained"
    assert cache_of(wrapper).get_cached() is kept


class RejectingGateway(socketserver.BaseRequestHandler):
    """A gateway that rejects a login before it asks for a password."""

    def handle(self):
        self.request.recv(100)
        fields = b"SERROR\0CXX000\0Mthe weather is bad\0\0"
        length = (len(fields) + 4).to_bytes(4, "big")
        self.request.sendall(b"E" + length + fields)
        self.request.recv(100)


def test_unknown_rejection_before_the_password_requests_no_credential(
    new_wrapper, local
):
    fetch_value(new_wrapper("warm"), "SELECT 1")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), RejectingGateway) as server:
        threading.Thread(target=server.serve_forever).start()
        own = {"PORT": str(server.server_address[1])}
        with pytest.raises(LakebaseError) as caught:
            fetch_value(new_wrapper(OPTIONS={"connect_budget": 1}, **own), "SELECT 1")
        server.shutdown()

    assert caught.value.failure_id == "unexplained"
    assert local.fetch_counters()["credentials_issued"] == 1


def test_native_login_has_no_registry_entry(new_wrapper, local):
    facts = local.facts
    wrapper = new_wrapper(
        USER=facts["native_user"], PASSWORD="p", HOST=facts["host"], NAME="x"
    )

    with pytest.raises(TypeError, match="with a password, not with a token"):
        access_to(wrapper.get_target())


def test_read_only_endpoint_needs_host_in_settings(new_wrapper, local, monkeypatch):
    from tests.local.rest_api import RestApi

    monkeypatch.delenv("PGHOST")
    api = RestApi(local.url, local.facts["owner_token"])
    spec = {"endpoint_type": "ENDPOINT_TYPE_READ_ONLY"}
    made = api.run_operation(
        "POST", f"{local.facts['branch']}/endpoints?endpoint_id=r", {"spec": spec}
    )
    try:
        with pytest.raises(LakebaseError) as caught:
            fetch_value(new_wrapper(OPTIONS={"endpoint": made["name"]}), "SELECT 1")
        forget_credentials()
        meant = new_wrapper(
            HOST=made["status"]["hosts"]["host"],
            OPTIONS={
                "endpoint": made["name"],
                "hostaddr": local.facts["hostaddr"],
            },
            PORT=str(local.facts["port"]),
        )
        assert fetch_value(meant, "SELECT pg_is_in_recovery()") is True
        meant.close()
    finally:
        api.run_operation("DELETE", made["name"])

    assert caught.value.failure_id == "endpoint-read-only"


def test_budget_starts_after_the_import_of_the_sdk(new_wrapper, monkeypatch):
    """Otherwise the first error on a busy machine would blame the workspace."""
    order = []

    def start_budget(*args, **kwargs):
        order.append("budget")
        return RetryPolicy(*args, **kwargs)

    monkeypatch.setattr(strategies, "import_sdk", lambda _: order.append("sdk"))
    monkeypatch.setattr(connector, "RetryPolicy", start_budget)

    fetch_value(new_wrapper(), "SELECT 1")

    assert order == ["sdk", "budget"]


class RejectedLogin(psycopg.OperationalError):
    """The server rejected a login after it had received the password."""

    pgconn: Any = SimpleNamespace(used_password=True)


@pytest.mark.parametrize("message", ["token has expired", "the weather is bad"])
def test_rejected_native_login_requests_no_credential(new_wrapper, local, message):
    """For a rejected token or an unknown message, other logins request a new one."""
    facts = local.facts
    wrapper = new_wrapper(
        USER=facts["native_user"],
        PASSWORD="p",
        HOST=facts["host"],
        OPTIONS={"connect_budget": 0.5},
    )

    def reject(_):
        raise RejectedLogin(f"connection to server failed: FATAL:  {message}")

    with pytest.raises(LakebaseError):
        Connector(wrapper.get_target(), {}, reject).run()

    assert local.fetch_counters()["requests"] == {}


def test_error_is_the_last_answer_of_the_workspace_before_the_timeout(
    new_wrapper, monkeypatch
):
    wrapper = new_wrapper(OPTIONS={"connect_budget": 1.5})
    busy = type("TooManyRequests", (OSError,), {})("slow down")
    causes = [busy, TimeoutError("no answer within 0 s")]

    def get(timeout):
        cause = causes.pop(0)
        if not causes:
            time.sleep(max(0.0, timeout))
        raise CallError(cause)

    monkeypatch.setattr(cache_of(wrapper), "get", get)

    with pytest.raises(LakebaseError) as caught:
        fetch_value(wrapper, "SELECT 1")

    assert causes == []
    assert caught.value.failure_id == "api-throttled"
