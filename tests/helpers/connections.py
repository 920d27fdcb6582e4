"""Connections of Django to a local Lakebase."""

import select
from typing import Any

from django_lakebase.base import DatabaseWrapper
from django_lakebase.local.client import LocalLakebase


def settings_for(local: LocalLakebase) -> dict[str, Any]:
    """Return the settings for *local*, with which no variable is needed."""
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


def fetch_value(wrapper: DatabaseWrapper, sql: str) -> Any:
    """Run *sql* and return the first column of its first row."""
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def wait_for_data(connection: Any) -> None:
    """Wait until the server has sent something to the idle *connection*."""
    assert select.select([connection.fileno()], [], [], 60)[0]
