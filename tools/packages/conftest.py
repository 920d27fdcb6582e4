"""Fixtures of the compatibility tests."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections

from django_lakebase.auth import registry
from django_lakebase.auth.credentials import utc_now
from django_lakebase.local.client import LocalLakebase


def _reset_engine() -> None:
    """Forget all credentials and logins, as a new process would."""
    # A running request belongs to an earlier test.
    for thread in threading.enumerate():
        if thread.name == "lakebase-workspace":
            thread.join(15)
    registry.reset()


@pytest.fixture
def local(lakebase: LocalLakebase) -> Iterator[LocalLakebase]:
    """Return the local Lakebase without faults and with reset counters."""
    lakebase.clear_faults()
    _reset_engine()
    lakebase.reset_counters()
    yield lakebase
    lakebase.clear_faults()
    _reset_engine()


@pytest.fixture
def reset_engine() -> Callable[[], None]:
    """Return a function that makes the engine forget all credentials and logins."""
    return _reset_engine


@pytest.fixture
def expire_tokens(local: LocalLakebase) -> Callable[[], None]:
    """Return a function that waits until all tokens issued so far have expired."""

    def expire() -> None:
        wrapper: Any = connections["default"]
        wrapper.close()
        wrapper.close_pool()
        wrapper.ensure_connection()
        expires_at = registry.access_to(wrapper.get_target()).credentials.expires_at
        # The next query has to log in.
        wrapper.close()
        wrapper.close_pool()
        assert expires_at is not None
        time.sleep(max(0.0, (expires_at - utc_now()).total_seconds()) + 0.5)

    return expire


@pytest.fixture
def assert_no_secret(local: LocalLakebase) -> Callable[[object], None]:
    """Return a function that asserts that a text contains no token and no password."""
    secrets = [
        local.env["DATABRICKS_CLIENT_SECRET"],
        local.facts["owner_token"],
        local.facts["native_password"],
    ]

    def check(text: object) -> None:
        assert [secret for secret in secrets if secret in str(text)] == []
        # Every token starts like this.
        assert "eyJ" not in str(text)

    return check
