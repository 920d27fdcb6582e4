"""Ways to speak with the local Lakebase: SDK clients, plain HTTP, psycopg."""

import contextlib
import json
import time
import urllib.error
import urllib.request

import psycopg
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config

from tests.helpers.sessions import open_session


@pytest.fixture
def principal(local):
    """Give the service principal's client."""
    env = local.env
    config = Config(
        host=local.url,
        client_id=env["DATABRICKS_CLIENT_ID"],
        client_secret=env["DATABRICKS_CLIENT_SECRET"],
        retry_timeout_seconds=1,
    )
    return WorkspaceClient(config=config)


@pytest.fixture
def owner(local):
    """Give the owner's client, which has a personal access token."""
    token = local.facts["owner_token"]
    return WorkspaceClient(host=local.url, token=token, auth_type="pat")


class Refused(Exception):  # noqa: N818 - an answer.
    """The API refused a request, or an operation failed."""

    def __init__(self, status, body):
        super().__init__(body.get("message", ""))
        self.status, self.body, self.code = status, body, body.get("error_code")


class Api:
    """The REST API in plain HTTP, as the owner."""

    def __init__(self, url, token):
        self.url, self.token = url, token

    def raw(self, method, path, body=None, token=None):
        """Send one request; return status, headers and text."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        data = None if body is None else body
        if data is not None and not isinstance(data, bytes):
            data = json.dumps(data).encode()
        request = urllib.request.Request(
            f"{self.url}{path}", data, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.headers, exc.read().decode()

    def ask(self, method, name, body=None):
        """Return the answer; raises Refused."""
        status, _, text = self.raw(method, f"/api/2.0/postgres/{name}", body)
        answer = json.loads(text)
        if status != 200:
            raise Refused(status, answer)
        return answer

    def do(self, method, name, body=None):
        """Carry out an operation; return its response."""
        operation = self.ask(method, name, body)
        assert operation["done"] is False
        deadline = time.monotonic() + 60
        while not operation["done"]:
            assert time.monotonic() < deadline
            operation = self.ask("GET", operation["name"])
        if "error" in operation:
            raise Refused(200, operation["error"])
        return operation["response"]

    def is_gone(self, name):
        """Return whether there is nothing called *name* any more."""
        try:
            self.ask("GET", name)
        except Refused as exc:
            return exc.code == "NOT_FOUND"
        return False


@pytest.fixture
def api(local):
    """Give the API in plain HTTP."""
    return Api(local.url, local.facts["owner_token"])


@pytest.fixture
def dial(local):
    """Give a function that connects as the service principal, or as it is told."""
    return lambda **own: open_session(local, **own)


@pytest.fixture
def dial_until(dial):
    """Give a function that connects as soon as it is let."""

    def connect(**own):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError):
                return dial(**own)
        return dial(**own)

    return connect
