"""Credentials come and go, and Django does not notice."""

import contextlib

import pytest

from django_lakebase.connection import LakebaseError
from django_lakebase.credentials import CredentialError
from tests.support import cache_of, one, put

pytestmark = pytest.mark.every_environment


def backend(wrapper):
    """Return which session of the server this is."""
    return one(wrapper, "SELECT pg_backend_pid()")


def test_connections_share_one_credential(new_wrapper, local):
    """Many connections take one request to the workspace."""
    for _ in range(5):
        wrapper = new_wrapper()
        assert one(wrapper, "SELECT 1") == 1

    assert local.counters()["credentials_issued"] == 1
    assert local.counters()["logins"] == 5


def test_a_credential_that_ends_is_replaced_for_the_next_connection(new_wrapper, local):
    """Without CONN_MAX_AGE each request's connection has a current credential."""
    wrapper = new_wrapper()
    put(wrapper, local.issue(local.facts["service_principal"]), left=30)

    one(wrapper, "SELECT 1")

    assert wrapper.lease.expires_at == cache_of(wrapper).expires_at
    assert local.counters()["credentials_issued"] == 1


def test_an_expired_token_is_replaced_at_once(new_wrapper, local):
    """A token that the server finds expired costs one retry, not an error."""
    wrapper = new_wrapper()
    put(wrapper, local.issue(local.facts["service_principal"], ttl=-5))

    assert one(wrapper, "SELECT 1") == 1
    assert local.counters()["refusals"] == 1


@pytest.mark.parametrize("message", ["jwt", "expired", "password", "decode"])
def test_a_refused_token_is_replaced_at_once(new_wrapper, local, message):
    """Each of the service's ways to refuse a token leads to a new one."""
    wrapper = new_wrapper()

    with local.fault("refuse-logins", count=1, message=message):
        assert one(wrapper, "SELECT 1") == 1

    assert local.counters()["credentials_issued"] == 2


def test_an_unknown_refusal_is_probed_with_a_new_token(new_wrapper, local):
    """A text that nobody knows may mean the token: a new one is tried, and kept."""
    wrapper = new_wrapper()

    with local.fault("refuse-logins", count=1, message="unknown"):
        assert one(wrapper, "SELECT 1") == 1

    assert cache_of(wrapper).expires_at == wrapper.lease.expires_at
    assert local.counters()["credentials_issued"] == 2


def test_an_unknown_refusal_leaves_the_credential_in_place(new_wrapper, local):
    """A probe that fails costs the others nothing."""
    wrapper = new_wrapper(OPTIONS={"connect_budget": 1.5})
    kept = put(wrapper, local.issue(local.facts["service_principal"]))

    with local.fault("refuse-logins", message="unknown"):
        with pytest.raises(LakebaseError, match="not in our table"):
            one(wrapper, "SELECT 1")
        with pytest.raises(LakebaseError):
            one(wrapper, "SELECT 1")

    assert cache_of(wrapper).ready() is kept
    assert local.counters()["credentials_issued"] == 1


def test_conn_max_age_is_capped_below_expiry(new_wrapper, local):
    """A persistent connection ends before its credential, at a request boundary."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    put(wrapper, local.issue(local.facts["service_principal"]), left=400)
    one(wrapper, "SELECT 1")
    opened_by = wrapper.close_at

    assert opened_by is not None
    wrapper.close_if_unusable_or_obsolete()
    assert wrapper.connection is not None
    wrapper.close_at = 0.0
    wrapper.close_if_unusable_or_obsolete()

    assert wrapper.connection is None


def test_conn_max_age_of_zero_stays_zero(new_wrapper):
    """Who wants a connection per request gets it."""
    wrapper = new_wrapper(CONN_MAX_AGE=0)
    one(wrapper, "SELECT 1")

    wrapper.close_if_unusable_or_obsolete()

    assert wrapper.connection is None


def test_a_connection_outlives_its_cap_while_the_workspace_is_down(
    new_wrapper, local, caplog
):
    """The cap is caution: no connection is given up for a credential not to be had."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    one(wrapper, "SELECT 1")
    first = backend(wrapper)
    put(wrapper, "ending", left=1)
    wrapper.close_at = 0.0

    with local.fault("api-down"):
        wrapper.close_if_unusable_or_obsolete()
        with contextlib.suppress(CredentialError):
            cache_of(wrapper).get()  # Until the renewal has failed.
        wrapper.close_if_unusable_or_obsolete()
        wrapper.close_if_unusable_or_obsolete()
        assert backend(wrapper) == first

    [warning] = warnings(caplog)
    assert "other" in warning


def test_an_idle_hour_is_no_trouble(new_wrapper, caplog):
    """A credential that nobody has asked to renew is not one that cannot be had."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    one(wrapper, "SELECT 1")
    put(wrapper, "ended", left=-1)
    wrapper.close_at = 0.0

    wrapper.close_if_unusable_or_obsolete()

    assert warnings(caplog) == []


def warnings(caplog):
    """Return the warnings that a connection is kept."""
    return [r.message for r in caplog.records if "is kept longer" in r.message]


def test_the_workspace_may_be_down_while_a_credential_is_valid(new_wrapper, local):
    """Connections are opened with the credential in hand, and renewed after."""
    wrapper = new_wrapper()
    put(wrapper, local.issue(local.facts["service_principal"]), left=30)

    with local.fault("api-down"):
        assert one(wrapper, "SELECT 1") == 1

    wrapper.close()
    assert one(wrapper, "SELECT 1") == 1
