"""Django settings for a connection to the local Lakebase."""

from typing import Any

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
