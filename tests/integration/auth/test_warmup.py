"""warm(), which fetches credentials before a worker forks."""

import pytest
from django.db import OperationalError, connections
from django.utils.connection import ConnectionDoesNotExist

from django_lakebase import warm
from django_lakebase.exceptions import LakebaseError, SettingsError
from django_lakebase.stats import get_stats
from tests.helpers.app_servers import wait_until_disconnected
from tests.helpers.credential_cache import cache_of
from tests.helpers.local_settings import settings_for
from tests.helpers.queries import fetch_value

CREDENTIALS = "/api/2.0/postgres/credentials"


@pytest.fixture
def aliases(new_wrapper, local, monkeypatch):
    """Yield a function that adds an alias with the given settings."""

    def make(alias, **settings):
        wrapper = new_wrapper(alias, **settings)
        monkeypatch.setitem(connections.settings, alias, wrapper.settings_dict)
        connections[alias] = wrapper
        made.append(alias)
        return wrapper

    made: list[str] = []
    connections["default"].close()
    # The gateway notices the end of earlier connections a moment later.
    wait_until_disconnected(local)
    yield make
    for alias in made:
        del connections[alias]


def test_warm_fetches_credential_host_and_user_without_connecting(aliases, local):
    other = aliases("other", **settings_for(local))

    warm("other")

    local_requests = local.fetch_counters()["requests"]
    assert local_requests[CREDENTIALS] == 1
    assert other.connection is None
    assert local.fetch_counters()["open_connections"] == 0
    assert fetch_value(other, "SELECT current_user") == local.facts["service_principal"]
    assert local.fetch_counters()["requests"] == local_requests


def test_warm_without_arguments_covers_each_alias_with_a_token(aliases, local):
    """Other engines and native logins are skipped."""
    native = {"HOST": local.facts["host"], "USER": "somebody", "PASSWORD": "secret"}
    aliases("native", **native)
    aliases("sqlite", ENGINE="django.db.backends.sqlite3", NAME=":memory:")
    other = aliases("other", **settings_for(local))

    warm()

    assert cache_of(connections["default"]).issued == 1
    assert cache_of(other).issued == 1
    assert local.fetch_counters()["requests"][CREDENTIALS] == 2


def test_warm_retries_after_a_brief_outage(aliases, local):
    with local.fault("api-5xx", status=503, count=1, scope="credentials"):
        warm("default")

    assert cache_of(connections["default"]).issued == 1


def test_failed_warm_is_not_counted_as_a_failed_connection(aliases, local):
    """It opens none."""
    before = get_stats()["default"].connections_failed

    with local.fault("no-workspace-access"), pytest.raises(LakebaseError):
        warm("default")

    assert get_stats()["default"].connections_failed == before


def test_warm_raises_the_error_that_connecting_would_raise(aliases, local):
    with (
        local.fault("no-workspace-access"),
        pytest.raises(LakebaseError, match="entitlement") as caught,
    ):
        warm("default")

    assert isinstance(caught.value, OperationalError)
    assert 'DATABASES["default"]' in str(caught.value)
    assert caught.value.failure_id == "workspace-access-missing"


def test_warm_raises_settings_errors(aliases, local):
    aliases("broken", OPTIONS={"endpoint": "no-endpoint"})

    with pytest.raises(SettingsError, match="no-endpoint"):
        warm("broken")
    with pytest.raises(ConnectionDoesNotExist):
        warm("no-such-alias")


def test_warm_raises_after_its_timeout(aliases, local):
    """The request continues."""
    with local.fault("api-slow", ms=3000):
        with pytest.raises(LakebaseError, match="no answer within"):
            warm("default", timeout=0.2)
        is_still_asking = cache_of(connections["default"]).is_refreshing()

    assert is_still_asking
