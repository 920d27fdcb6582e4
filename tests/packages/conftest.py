"""What the journeys with other packages share: tokens that end, and secrets."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections
from django_lakebase.credentials import utc_now

from django_lakebase.local.client import LocalLakebase
from tests.helpers.credentials import cache_of


@pytest.fixture
def outlive_token(local: LocalLakebase) -> Callable[[], None]:
    """Give a function that returns when all tokens handed out so far are expired."""

    def outlive() -> None:
        wrapper: Any = connections["default"]
        wrapper.close()
        wrapper.close_pool()
        wrapper.ensure_connection()
        ends_at = cache_of(wrapper).expires_at
        # What comes next has to log in.
        wrapper.close()
        wrapper.close_pool()
        assert ends_at is not None
        time.sleep(max(0.0, (ends_at - utc_now()).total_seconds()) + 0.5)

    return outlive


@pytest.fixture
def assert_no_secret(local: LocalLakebase) -> Callable[[object], None]:
    """Give a function that looks for tokens and passwords in a text."""
    secrets = [
        local.env["DATABRICKS_CLIENT_SECRET"],
        local.facts["owner_token"],
        local.facts["native_password"],
    ]

    def check(text: object) -> None:
        assert [secret for secret in secrets if secret in str(text)] == []
        # Each token begins so.
        assert "eyJ" not in str(text)

    return check
