"""The two engines of the comparison, and the local Lakebase that both connect to."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from django_lakebase import pool, workspace
from django_lakebase.local.client import FOREIGN, LocalLakebase

OURS = "django_lakebase"
STOCK = "django.db.backends.postgresql"


@contextlib.contextmanager
def lakebase(*options: str) -> Iterator[LocalLakebase]:
    """Start a local Lakebase, and have the environment lead to it."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(FOREIGN)}
    for name in kept:
        del os.environ[name]
    try:
        with LocalLakebase.start(*options) as local:
            os.environ.update(local.env)
            forget()
            yield local
            for name in local.env:
                os.environ.pop(name, None)
    finally:
        forget()
        os.environ.update(kept)


def forget() -> None:
    """Forget all credentials and clients, as a new process would."""
    workspace._accesses.clear()
    workspace._clients.clear()


def ours(alias: str = "ours", **settings: Any) -> Any:
    """Return a connection of this project's engine, configured by the environment."""
    return _wrapper(OURS, alias, settings)


def stock(local: LocalLakebase, alias: str = "stock", **settings: Any) -> Any:
    """Return a connection of Django's own engine, given a token just now."""
    facts = local.facts
    place = {
        "NAME": facts["database"],
        "USER": facts["service_principal"],
        "PASSWORD": local.issue(facts["service_principal"]),
        "HOST": facts["host"],
        "PORT": str(facts["port"]),
    }
    options = {
        "hostaddr": facts["hostaddr"],
        "sslmode": "verify-full",
        "sslrootcert": facts["ca_file"],
        **settings.pop("OPTIONS", {}),
    }
    return _wrapper(STOCK, alias, {**place, **settings, "OPTIONS": options})


def _wrapper(engine: str, alias: str, settings: dict[str, Any]) -> Any:
    from django.db import connections
    from django.utils.module_loading import import_string

    configured = connections.configure_settings(
        {"default": {}, alias: {"ENGINE": engine, **settings}}
    )
    return import_string(f"{engine}.base.DatabaseWrapper")(configured[alias], alias)


def close(*wrappers: Any) -> None:
    """Close connections, and their pools."""
    for wrapper in wrappers:
        wrapper.close()
        if wrapper.settings_dict["OPTIONS"].get("pool"):
            wrapper.close_pool()
        pool.close_pools(wrapper.alias)


def query(wrapper: Any) -> None:
    """Run the smallest query."""
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
