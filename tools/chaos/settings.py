"""
The writers' settings: one database under several aliases.

The aliases differ in how long they keep a connection. Half of them get the host name
from the environment and use direct TLS; the others ask the workspace for the host and
do not.
"""

import os
from typing import Any

BUDGET = float(os.environ.get("CHAOS_BUDGET", "3"))
POOL = bool(os.environ.get("CHAOS_POOL"))
POOL_SIZE = 2


def _database(
    *, max_age: float | None = 0, looks_up_host: bool = False
) -> dict[str, Any]:
    options: dict[str, Any] = {"connect_budget": BUDGET}
    if POOL:
        options["pool"] = {"min_size": 1, "max_size": POOL_SIZE}
    if looks_up_host:
        options["endpoint"] = os.environ.get("ENDPOINT_NAME", "")
        options["sslnegotiation"] = "postgres"
    return {
        "ENGINE": "django_lakebase",
        "CONN_MAX_AGE": 0 if POOL else max_age,
        "OPTIONS": options,
    }


SECRET_KEY = "only for chaos"  # noqa: S105
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_lakebase", "tools.chaos"]
DATABASES = {"default": _database(), "looked_up": _database(looks_up_host=True)}
if not POOL:
    DATABASES |= {
        "persistent": _database(max_age=3600),
        "looked_up_persistent": _database(max_age=None, looks_up_host=True),
    }
