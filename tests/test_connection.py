"""The connection that brings its own password: what the journeys do not pass."""

import copy
import select
import socketserver
import threading
import time

import pytest

from django_lakebase import opening as rooms
from django_lakebase.connection import LakebaseError, is_readable
from django_lakebase.credentials import CredentialError
from django_lakebase.opening import Opening
from django_lakebase.workspace import access_to
from tests.support import cache_of, forget_all, one, put


def test_what_stands_for_a_value_is_itself_when_copied(new_wrapper):
    """Copied settings and parameters ask the same cache."""
    password = new_wrapper().get_connection_params()["password"]

    assert copy.copy(password) is password
    assert copy.deepcopy({"password": password})["password"] is password


def test_an_idle_connection_is_looked_at_without_poll(new_wrapper, monkeypatch):
    """On systems that lack it."""
    wrapper = new_wrapper()
    one(wrapper, "SELECT 1")
    monkeypatch.delattr(select, "poll")

    assert not is_readable(wrapper.connection)


def test_a_moved_endpoint_while_the_workspace_is_down(new_wrapper, local, monkeypatch):
    """The old host is all that is known, and the error names it."""
    monkeypatch.delenv("PGHOST")
    wrapper = new_wrapper()
    one(wrapper, "SELECT 1")
    wrapper.close()

    with (
        local.fault("endpoint-moved"),
        local.fault("api-down"),
        pytest.raises(LakebaseError) as caught,
    ):
        one(wrapper, "SELECT 1")

    assert caught.value.failure_id == "wrong-host"
    assert local.facts["host"] in str(caught.value)


def test_a_probe_for_which_there_is_no_credential(new_wrapper, local):
    """The unknown refusal is the error, and not that of the probe."""
    wrapper = new_wrapper(OPTIONS={"connect_budget": 1})
    kept = put(wrapper, local.issue(local.facts["service_principal"]))

    with (
        local.fault("refuse-logins", message="unknown"),
        local.fault("api-down"),
        pytest.raises(LakebaseError) as caught,
    ):
        one(wrapper, "SELECT 1")

    assert caught.value.failure_id == "unexplained"
    assert cache_of(wrapper).ready() is kept


class Refusing(socketserver.BaseRequestHandler):
    """A gateway that refuses before it has asked for a password."""

    def handle(self):
        self.request.recv(100)
        fields = b"SERROR\0CXX000\0Mthe weather is bad\0\0"
        length = (len(fields) + 4).to_bytes(4, "big")
        self.request.sendall(b"E" + length + fields)
        self.request.recv(100)


def test_an_unknown_text_before_the_password_is_not_the_token_s_fault(
    new_wrapper, local
):
    """No other credential is asked for."""
    one(new_wrapper("warm"), "SELECT 1")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever).start()
        own = {"PORT": str(server.server_address[1])}
        with pytest.raises(LakebaseError) as caught:
            one(new_wrapper(OPTIONS={"connect_budget": 1}, **own), "SELECT 1")
        server.shutdown()

    assert caught.value.failure_id == "unexplained"
    assert local.counters()["credentials_issued"] == 1


def test_a_native_login_has_no_access(new_wrapper, local):
    """There is nothing to ask the workspace for."""
    facts = local.facts
    wrapper = new_wrapper(
        USER=facts["native_user"], PASSWORD="p", HOST=facts["host"], NAME="x"
    )

    with pytest.raises(TypeError, match="a password of its own"):
        access_to(wrapper.get_target())


def test_a_read_only_endpoint_has_no_host_to_follow(new_wrapper, local, monkeypatch):
    """Unless HOST says that it is meant."""
    from tests.local.rest_api import RestApi

    monkeypatch.delenv("PGHOST")
    api = RestApi(local.url, local.facts["owner_token"])
    spec = {"endpoint_type": "ENDPOINT_TYPE_READ_ONLY"}
    made = api.run_operation(
        "POST", f"{local.facts['branch']}/endpoints?endpoint_id=r", {"spec": spec}
    )
    try:
        with pytest.raises(LakebaseError) as caught:
            one(new_wrapper(OPTIONS={"endpoint": made["name"]}), "SELECT 1")
        forget_all()
        meant = new_wrapper(
            HOST=made["status"]["hosts"]["host"],
            OPTIONS={
                "endpoint": made["name"],
                "hostaddr": local.facts["hostaddr"],
            },
            PORT=str(local.facts["port"]),
        )
        assert one(meant, "SELECT pg_is_in_recovery()") is True
        meant.close()
    finally:
        api.run_operation("DELETE", made["name"])

    assert caught.value.failure_id == "endpoint-read-only"


def test_loading_the_sdk_is_not_taken_from_the_budget(new_wrapper, monkeypatch):
    """Else a busy machine's first connect would blame the workspace."""
    order = []
    monkeypatch.setattr(rooms, "import_sdk", lambda: order.append("sdk"))
    real = rooms.Ladder
    monkeypatch.setattr(
        rooms, "Ladder", lambda *a, **k: order.append("budget") or real(*a, **k)
    )

    one(new_wrapper(), "SELECT 1")

    assert order == ["sdk", "budget"]


def test_a_native_login_has_no_credential_to_renew(new_wrapper, local):
    """Whatever is asked for, there is none to drop and none to fetch."""
    facts = local.facts
    wrapper = new_wrapper(
        USER=facts["native_user"], PASSWORD="p", HOST=facts["host"], NAME="x"
    )

    opening = Opening(wrapper.get_target(), {}, pytest.fail)

    assert not opening._renew()
    assert not opening._probe()


def test_the_error_is_what_the_workspace_said_last(new_wrapper, monkeypatch):
    """That the time was up before the next answer is its echo."""
    wrapper = new_wrapper(OPTIONS={"connect_budget": 1.5})
    busy = type("TooManyRequests", (OSError,), {})("slow down")
    causes = [busy, TimeoutError("no answer within 0 s")]

    def get(timeout):
        cause = causes.pop(0)
        if not causes:
            time.sleep(max(0.0, timeout))
        raise CredentialError(str(cause)) from cause

    monkeypatch.setattr(cache_of(wrapper), "get", get)

    with pytest.raises(LakebaseError) as caught:
        one(wrapper, "SELECT 1")

    assert causes == []
    assert caught.value.failure_id == "api-throttled"
