"""The stats of a process, for dashboards and health pages."""

import pytest
from django.db import OperationalError, connections

from django_lakebase.stats import get_stats
from tests.helpers.queries import fetch_value


@pytest.fixture
def default(local, django_db_blocker):
    """Return the connection of the default alias, closed."""
    with django_db_blocker.unblock():
        connections["default"].close()
        yield connections["default"]
        connections["default"].close()


def test_stats_count_connections_and_credentials(default):
    before = get_stats()["default"]

    fetch_value(default, "SELECT 1")

    after = get_stats()["default"]
    assert after.connections_opened == before.connections_opened + 1
    assert (before.credentials_issued, after.credentials_issued) == (0, 1)
    assert after.credential_expires_at == default.lifetime.expires_at
    assert after.endpoint == default.get_target().endpoint
    assert after.pool == {}


def test_last_error_says_why_there_is_no_credential(default, local):
    """Without secrets, and until a credential is issued again."""
    with local.fault("no-workspace-access"), pytest.raises(OperationalError):
        fetch_value(default, "SELECT 1")
    failed = get_stats()["default"]

    fetch_value(default, "SELECT 1")

    assert "entitlement" in failed.last_error
    assert "client_secret" not in failed.last_error
    assert get_stats()["default"].last_error == ""


def test_stats_send_no_request(default, local):
    """A health page may read them each second."""
    get_stats()

    assert local.fetch_counters()["requests"] == {}
    assert default.connection is None


def test_pool_stats_are_those_of_psycopg_pool(new_wrapper):
    """They are summed over the pools of the alias; no pool is created."""
    wrapper = new_wrapper("pooled", OPTIONS={"pool": {"min_size": 1, "max_size": 3}})
    assert wrapper.pool_stats() == {}

    fetch_value(wrapper, "SELECT 1")

    stats = wrapper.pool_stats()
    assert (stats["pool_max"], stats["requests_num"]) == (3, 1)
