"""What a worker fetches at its start, before it forks."""

import pytest
from django.db import OperationalError, connections
from django.utils.connection import ConnectionDoesNotExist

from django_lakebase import warm
from django_lakebase.connection import LakebaseError
from django_lakebase.errors import SettingsError
from tests.helpers.credentials import cache_of
from tests.helpers.wrappers import fetch_value, settings_for

CREDENTIALS = "/api/2.0/postgres/credentials"


@pytest.fixture
def aliases(new_wrapper, monkeypatch):
    """Give a function that makes an alias of given settings, beside the default."""

    def make(alias, **settings):
        wrapper = new_wrapper(alias, **settings)
        monkeypatch.setitem(connections.settings, alias, wrapper.settings_dict)
        connections[alias] = wrapper
        made.append(alias)
        return wrapper

    made: list[str] = []
    connections["default"].close()
    yield make
    for alias in made:
        del connections[alias]


def test_warm_fetches_what_connecting_needs_and_opens_nothing(aliases, local):
    """The host and the user too, where only the workspace knows them."""
    other = aliases("other", **settings_for(local))

    warm("other")

    local_requests = local.counters()["requests"]
    assert local_requests[CREDENTIALS] == 1
    assert other.connection is None
    assert local.counters()["open_connections"] == 0
    assert fetch_value(other, "SELECT current_user") == local.facts["service_principal"]
    assert local.counters()["requests"] == local_requests


def test_warm_without_names_serves_each_alias_of_the_engine(aliases, local):
    """Aliases that need nothing of the workspace are skipped."""
    native = {"HOST": local.facts["host"], "USER": "somebody", "PASSWORD": "secret"}
    aliases("native", **native)
    aliases("sqlite", ENGINE="django.db.backends.sqlite3", NAME=":memory:")
    other = aliases("other", **settings_for(local))

    warm()

    assert cache_of(connections["default"]).issued == 1
    assert cache_of(other).issued == 1
    assert local.counters()["requests"][CREDENTIALS] == 2


def test_warm_retries_as_connecting_does(aliases, local):
    """A workspace that fails for a moment does not end a worker at its start."""
    with local.fault("api-5xx", status=503, count=1, path="credentials"):
        warm("default")

    assert cache_of(connections["default"]).issued == 1


def test_warm_raises_what_connecting_raises(aliases, local):
    """It names the alias, and Django's own errors catch it."""
    with (
        local.fault("no-workspace-access"),
        pytest.raises(LakebaseError, match="entitlement") as caught,
    ):
        warm("default")

    assert isinstance(caught.value, OperationalError)
    assert 'DATABASES["default"]' in str(caught.value)
    assert caught.value.failure_id == "workspace-access-missing"


def test_warm_raises_settings_errors(aliases, local):
    """An alias that no connection could be made of is not passed over."""
    aliases("broken", OPTIONS={"endpoint": "no-endpoint"})

    with pytest.raises(SettingsError, match="no-endpoint"):
        warm("broken")
    with pytest.raises(ConnectionDoesNotExist):
        warm("no-such-alias")


def test_warm_gives_up_after_its_timeout(aliases, local):
    """The request goes on without it."""
    with local.fault("api-slow", ms=3000):
        with pytest.raises(LakebaseError, match="no answer within"):
            warm("default", timeout=0.2)
        is_still_asking = cache_of(connections["default"]).is_refreshing()

    assert is_still_asking
