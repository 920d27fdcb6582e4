"""Clients of the emulator: the SDK, plain HTTP and psycopg."""

import contextlib
import functools
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config

from tests.helpers.plain_psycopg import open_session
from tests.local.rest_api import RestApi


@pytest.fixture
def temp_dir(monkeypatch):
    """Set ``TMPDIR`` to a new, empty directory and return it."""
    # As root, PostgreSQL runs as an account that cannot reach pytest's tmp_path.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


@pytest.fixture
def principal_client(local):
    """Return the SDK's client for the service principal."""
    env = local.env
    config = Config(
        host=local.url,
        client_id=env["DATABRICKS_CLIENT_ID"],
        client_secret=env["DATABRICKS_CLIENT_SECRET"],
        retry_timeout_seconds=1,
    )
    return WorkspaceClient(config=config)


@pytest.fixture
def owner_client(local):
    """Return the SDK's client for the owner, who has a personal access token."""
    token = local.facts["owner_token"]
    return WorkspaceClient(host=local.url, token=token, auth_type="pat")


@pytest.fixture
def api(local):
    """Return a client of the REST API that acts as the owner."""
    return RestApi(local.url, local.facts["owner_token"])


@pytest.fixture
def native_login(local):
    """Return the user name and password of the role with a native password."""
    return {
        "user": local.facts["native_user"],
        "password": local.facts["native_password"],
    }


@pytest.fixture
def connect(local):
    """
    Return a function that opens a psycopg connection to the default endpoint.

    It connects as the service principal, unless its keyword arguments, which are
    libpq's parameters, say otherwise.
    """
    return functools.partial(open_session, local)


@pytest.fixture
def connect_when_ready(connect):
    """Return a function like *connect* that retries for up to 60 seconds."""

    def connect_when_ready(**params):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError):
                return connect(**params)
        return connect(**params)

    return connect_when_ready


@pytest.fixture
def login_error(connect):
    """Return a function that expects a login to fail and returns the error text."""

    def login_error(**params):
        with pytest.raises(psycopg.OperationalError) as caught:
            connect(**params)
        return str(caught.value)

    return login_error
