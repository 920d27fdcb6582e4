"""Connections while credentials expire and are refreshed."""

import contextlib

import pytest

from django_lakebase.auth.singleflight import CallError
from django_lakebase.auth.workspace import Workspace
from django_lakebase.exceptions import LakebaseError
from tests.helpers.credential_cache import cache_of, cache_token
from tests.helpers.queries import fetch_value

pytestmark = pytest.mark.every_environment


def session_pid(wrapper):
    """Return the process id of the server session."""
    return fetch_value(wrapper, "SELECT pg_backend_pid()")


def test_connections_share_one_credential(new_wrapper, local):
    for _ in range(5):
        wrapper = new_wrapper()
        assert fetch_value(wrapper, "SELECT 1") == 1

    assert local.fetch_counters()["credentials_issued"] == 1
    assert local.fetch_counters()["logins"] == 5


def test_expiring_credential_is_refreshed_for_the_next_connection(new_wrapper, local):
    wrapper = new_wrapper()
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]), left=30)

    fetch_value(wrapper, "SELECT 1")

    assert wrapper.lifetime.expires_at == cache_of(wrapper).expires_at
    assert local.fetch_counters()["credentials_issued"] == 1


def test_expired_token_costs_one_retry_and_no_error(new_wrapper, local):
    wrapper = new_wrapper()
    cache_token(wrapper, local.issue_token(local.facts["service_principal"], ttl=-5))

    assert fetch_value(wrapper, "SELECT 1") == 1
    assert local.fetch_counters()["rejections"] == 1


@pytest.mark.parametrize("message", ["jwt", "expired", "password", "decode"])
def test_rejected_token_is_replaced_for_each_message_of_the_service(
    new_wrapper, local, message
):
    wrapper = new_wrapper()

    with local.fault("reject-logins", count=1, message=message):
        assert fetch_value(wrapper, "SELECT 1") == 1

    assert local.fetch_counters()["credentials_issued"] == 2


def test_unknown_rejection_is_probed_with_a_new_token(new_wrapper, local):
    """The new token is kept if its login succeeds."""
    wrapper = new_wrapper()

    with local.fault("reject-logins", count=1, message="unknown"):
        assert fetch_value(wrapper, "SELECT 1") == 1

    assert cache_of(wrapper).expires_at == wrapper.lifetime.expires_at
    assert local.fetch_counters()["credentials_issued"] == 2


def test_failed_probe_keeps_the_cached_credential(new_wrapper, local):
    wrapper = new_wrapper(OPTIONS={"connect_budget": 1.5})
    kept = cache_token(wrapper, local.issue_token(local.facts["service_principal"]))

    with local.fault("reject-logins", message="unknown"):
        with pytest.raises(LakebaseError, match="does not recognise"):
            fetch_value(wrapper, "SELECT 1")
        with pytest.raises(LakebaseError):
            fetch_value(wrapper, "SELECT 1")

    assert cache_of(wrapper).get_cached() is kept
    assert local.fetch_counters()["credentials_issued"] == 1


def test_conn_max_age_is_capped_below_the_expiry_of_the_credential(new_wrapper, local):
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]), left=400)
    fetch_value(wrapper, "SELECT 1")
    opened_by = wrapper.close_at

    assert opened_by is not None
    wrapper.close_if_unusable_or_obsolete()
    assert wrapper.connection is not None
    wrapper.close_at = 0.0
    wrapper.close_if_unusable_or_obsolete()

    assert wrapper.connection is None


def test_conn_max_age_of_zero_stays_zero(new_wrapper):
    wrapper = new_wrapper(CONN_MAX_AGE=0)
    fetch_value(wrapper, "SELECT 1")

    wrapper.close_if_unusable_or_obsolete()

    assert wrapper.connection is None


def test_connection_is_kept_beyond_the_cap_while_the_workspace_is_down(
    new_wrapper, local, caplog
):
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    fetch_value(wrapper, "SELECT 1")
    first = session_pid(wrapper)
    cache_token(wrapper, "ending", left=1)
    wrapper.close_at = 0.0

    with local.fault("api-down"):
        wrapper.close_if_unusable_or_obsolete()
        with contextlib.suppress(CallError):
            cache_of(wrapper).get()  # Wait until the refresh has failed.
        wrapper.close_if_unusable_or_obsolete()
        wrapper.close_if_unusable_or_obsolete()
        assert session_pid(wrapper) == first

    [warning] = warnings(caplog)
    assert "other" in warning


def test_kept_connection_logs_a_warning_for_an_error_without_a_text(
    new_wrapper, caplog, monkeypatch
):
    def fail(self, endpoint):
        raise TimeoutError

    wrapper = new_wrapper(CONN_MAX_AGE=None)
    fetch_value(wrapper, "SELECT 1")
    cache_token(wrapper, "ending", left=1)
    wrapper.close_at = 0.0
    monkeypatch.setattr(Workspace, "issue_credential", fail)
    with contextlib.suppress(CallError):
        cache_of(wrapper).get()

    wrapper.close_if_unusable_or_obsolete()

    assert len(warnings(caplog)) == 1


def test_connection_kept_after_an_idle_hour_logs_no_warning(new_wrapper, caplog):
    """No refresh was requested, so none has failed."""
    wrapper = new_wrapper(CONN_MAX_AGE=None)
    fetch_value(wrapper, "SELECT 1")
    cache_token(wrapper, "ended", left=-1)
    wrapper.close_at = 0.0

    wrapper.close_if_unusable_or_obsolete()

    assert warnings(caplog) == []


def warnings(caplog):
    """Return the warnings that a connection is kept."""
    return [r.message for r in caplog.records if "is kept beyond" in r.message]


def test_new_connections_work_during_an_outage_while_the_credential_is_valid(
    new_wrapper, local
):
    wrapper = new_wrapper()
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]), left=30)

    with local.fault("api-down"):
        assert fetch_value(wrapper, "SELECT 1") == 1

    wrapper.close()
    assert fetch_value(wrapper, "SELECT 1") == 1
