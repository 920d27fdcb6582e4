"""The two backends of a comparison, and the local Lakebase that both connect to."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from django_lakebase import pool
from django_lakebase.auth import registry
from django_lakebase.local.client import VARIABLE_PREFIXES, LocalLakebase

LAKEBASE = "django_lakebase"
STOCK = "django.db.backends.postgresql"


@contextlib.contextmanager
def running_lakebase(*options: str) -> Iterator[LocalLakebase]:
    """Run a local Lakebase, and point the environment at it."""
    saved = {k: v for k, v in os.environ.items() if k.startswith(VARIABLE_PREFIXES)}
    for name in saved:
        del os.environ[name]
    try:
        with LocalLakebase.start(*options) as local:
            os.environ.update(local.env)
            registry.reset()
            yield local
            for name in local.env:
                os.environ.pop(name, None)
    finally:
        registry.reset()
        os.environ.update(saved)


def lakebase_connection(alias: str = "lakebase", **settings: Any) -> Any:
    """Return a connection of this project's engine, configured by the environment."""
    return _new_connection(LAKEBASE, alias, settings)


def stock_connection(
    local: LocalLakebase, alias: str = "stock", **settings: Any
) -> Any:
    """Return a connection of Django's own backend with a newly issued token."""
    facts = local.facts
    login = {
        "NAME": facts["database"],
        "USER": facts["service_principal"],
        "PASSWORD": local.issue_token(facts["service_principal"]),
        "HOST": facts["host"],
        "PORT": str(facts["port"]),
    }
    options = {
        "hostaddr": facts["hostaddr"],
        "sslmode": "verify-full",
        "sslrootcert": facts["ca_file"],
        **settings.pop("OPTIONS", {}),
    }
    return _new_connection(STOCK, alias, {**login, **settings, "OPTIONS": options})


def _new_connection(engine: str, alias: str, settings: dict[str, Any]) -> Any:
    from django.db import connections
    from django.utils.module_loading import import_string

    configured = connections.configure_settings(
        {"default": {}, alias: {"ENGINE": engine, **settings}}
    )
    return import_string(f"{engine}.base.DatabaseWrapper")(configured[alias], alias)


def close(*connections: Any) -> None:
    """Close connections and their pools."""
    for connection in connections:
        connection.close()
        if connection.settings_dict["OPTIONS"].get("pool"):
            connection.close_pool()
        pool.close_pools(connection.alias)


def run_query(connection: Any) -> None:
    """Run the smallest possible query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
