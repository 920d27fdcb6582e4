"""Small helpers of the tests."""

import os
import select
import threading
from datetime import timedelta
from typing import Any

from django_lakebase import workspace
from django_lakebase.base import DatabaseWrapper
from django_lakebase.credentials import Credential, CredentialCache, utc_now
from django_lakebase.local.client import LocalLakebase, call


def forget_all() -> None:
    """Forget all credentials and clients, as a new process would."""
    outlive("lakebase-workspace")
    workspace._accesses.clear()
    workspace._clients.clear()


def outlive(name: str) -> None:
    """Wait for the threads called *name*...: their requests are of an earlier test."""
    for thread in threading.enumerate():
        if thread.name.startswith(name):
            thread.join(15)


def cache_of(wrapper: DatabaseWrapper) -> CredentialCache:
    """Return the cache that *wrapper* logs in with."""
    return workspace.access_to(wrapper.get_target()).credentials


def put(wrapper: DatabaseWrapper, token: str, *, left: float = 3600.0) -> Credential:
    """Make the cache of *wrapper* believe in *token* for *left* seconds more."""
    now = utc_now()
    credential = Credential(
        token=token,
        issued_at=now - timedelta(seconds=3600 - left),
        expires_at=now + timedelta(seconds=left),
    )
    cache_of(wrapper).adopt(credential)
    return credential


def hear_from(connection: Any) -> None:
    """Wait until something of the server's has arrived at *connection*."""
    assert select.select([connection.fileno()], [], [], 60)[0]


def settings_for(local: LocalLakebase) -> dict[str, Any]:
    """Return the settings that lead to *local*, whatever the environment says."""
    env = local.env
    return {
        "PORT": env["PGPORT"],
        "OPTIONS": {
            "workspace": {
                "host": env["DATABRICKS_HOST"],
                "client_id": env["DATABRICKS_CLIENT_ID"],
                "client_secret": env["DATABRICKS_CLIENT_SECRET"],
            },
            "endpoint": env["ENDPOINT_NAME"],
            "hostaddr": env["LAKEBASE_HOSTADDR"],
            "sslrootcert": env["PGSSLROOTCERT"],
        },
    }


def one(wrapper: DatabaseWrapper, sql: str) -> Any:
    """Return the first value that *sql* gives."""
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def owners_client() -> Any:
    """Return a client for the owner of the local project."""
    from databricks.sdk import WorkspaceClient

    url = os.environ["LAKEBASE_LOCAL_URL"]
    token = call(url, "GET", "facts")["owner_token"]
    return WorkspaceClient(host=url, token=token, auth_type="pat")
