"""
The settings of the writers: one table, several ways to hold a connection.

Half of the aliases have their host from the environment, half ask the workspace for it.
"""

import os

BUDGET = float(os.environ.get("CHAOS_BUDGET", "3"))
POOL = bool(os.environ.get("CHAOS_POOL"))
POOL_SIZE = 2


def _alias(*, max_age=0, asks=False):
    options = {"connect_budget": BUDGET}
    if POOL:
        options["pool"] = {"min_size": 1, "max_size": POOL_SIZE}
    if asks:
        options["endpoint"] = os.environ.get("ENDPOINT_NAME", "")
    return {
        "ENGINE": "django_lakebase",
        "CONN_MAX_AGE": 0 if POOL else max_age,
        "OPTIONS": options,
    }


SECRET_KEY = "only for chaos"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_lakebase", "tools.chaos"]
DATABASES = {"default": _alias(), "asked": _alias(asks=True)}
if not POOL:
    DATABASES |= {
        "kept": _alias(max_age=3600),
        "asked_kept": _alias(max_age=None, asks=True),
    }
