"""Fixtures of all tests: one local Lakebase, and connections to it."""

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections
from django.db.utils import load_backend

from django_lakebase import pool
from django_lakebase.auth import host_check
from django_lakebase.base import DatabaseWrapper
from django_lakebase.connect import tls
from django_lakebase.local.client import LocalLakebase
from tests.helpers.credential_cache import forget_credentials
from tests.helpers.engine_threads import join_threads

# Projects of users: they have their own tests and conftest.
collect_ignore = ["projects"]

NewWrapper = Callable[..., DatabaseWrapper]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    lakebase, django_db_modify_db_settings_parallel_suffix
):
    """Start the local Lakebase before a test database is created."""


@pytest.fixture(autouse=True)
def no_host_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Postpone the check of a host, whose request another test could count."""
    monkeypatch.setattr(host_check, "DELAY", 3600.0)


@pytest.fixture
def local(lakebase: LocalLakebase) -> Iterator[LocalLakebase]:
    """Yield the local Lakebase without faults and with counters at zero."""
    lakebase.clear_faults()
    forget_credentials()
    tls.reset()
    lakebase.reset_counters()
    yield lakebase
    lakebase.clear_faults()
    forget_credentials()


@pytest.fixture
def new_wrapper(local: LocalLakebase, django_db_blocker: Any) -> Iterator[NewWrapper]:
    """Yield a function that makes connections from settings, as Django does."""
    made: list[DatabaseWrapper] = []

    def new(alias: str = "other", **settings: Any) -> DatabaseWrapper:
        own = {"ENGINE": "django_lakebase", **copy.deepcopy(settings)}
        configured = connections.configure_settings({"default": {}, alias: own})
        backend = load_backend(configured[alias]["ENGINE"])
        wrapper: DatabaseWrapper = backend.DatabaseWrapper(configured[alias], alias)
        made.append(wrapper)
        return wrapper

    with django_db_blocker.unblock():
        yield new
        for wrapper in made:
            wrapper.inc_thread_sharing()
            wrapper.close()
            pool.close_pools(wrapper.alias)
            join_threads(f"django-{wrapper.alias}-worker")


@pytest.fixture
def all_logs() -> Iterator[list[str]]:
    """Yield the list of all log messages of all loggers, at DEBUG."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    root, handler = logging.getLogger(), Collector(logging.DEBUG)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)
