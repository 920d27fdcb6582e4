"""Errors that user code gets for each failure that a test can cause."""

import builtins
import time

import psycopg
import pytest
from databricks.sdk.errors import PermissionDenied
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from django_lakebase.exceptions import LakebaseError
from tests.helpers.credential_cache import (
    cache_of,
    cache_token,
    cached_credential,
    forget_credentials,
)
from tests.helpers.queries import fetch_value


def failure_of(wrapper):
    """Return the error of a query."""
    with pytest.raises(OperationalError) as caught:
        fetch_value(wrapper, "SELECT 1")
    error = caught.value
    assert isinstance(error, LakebaseError)
    assert error.__cause__ is not None
    assert f'DATABASES["{wrapper.alias}"]' in str(error)
    return error


@pytest.mark.parametrize(
    ("fault", "settings", "failure_id", "hint"),
    [
        ("api-down", {}, "api-unreachable", "DATABRICKS_HOST"),
        ("api-5xx", {"status": 503}, "api-unreachable", "DATABRICKS_HOST"),
        ("secret-revoked", {}, "bad-client-secret", "DATABRICKS_CLIENT_SECRET"),
        ("no-workspace-access", {}, "workspace-access-missing", "workspace admin"),
        ("empty-credential", {}, "empty-credential", "Databricks support"),
        ("role-missing", {}, "role-missing", "databricks_create_role"),
        (
            "reject-logins",
            {"message": "jwt"},
            "token-rejected",
            "databricks_create_role",
        ),
        ("reject-logins", {"message": "expired"}, "token-expired", "timedatectl"),
        (
            "reject-logins",
            {"message": "password"},
            "token-rejected",
            "databricks_create",
        ),
        ("reject-logins", {"message": "label"}, "wrong-user", "PGUSER"),
        ("reject-logins", {"message": "decode"}, "token-rejected", "databricks_create"),
        ("reject-logins", {"message": "sasl"}, "pooled-host", "-pooler"),
        ("reject-logins", {"message": "disabled"}, "endpoint-disabled", "Enable it"),
        (
            "reject-logins",
            {"message": "too-many"},
            "too-many-connections",
            "pool sizes",
        ),
        ("reject-logins", {"message": "unknown"}, "unexplained", "lakebase_check"),
    ],
)
def test_fault_of_the_service_raises_its_failure_and_hint(
    new_wrapper, local, fault, settings, failure_id, hint
):
    with local.fault(fault, **settings):
        error = failure_of(new_wrapper(OPTIONS={"connect_budget": 2}))

    assert error.failure_id == failure_id
    assert hint in str(error)


@pytest.mark.parametrize(
    ("settings", "failure_id", "named"),
    [
        ({"NAME": "nowhere"}, "database-missing", "PGDATABASE"),
        ({"HOST": "ep-none.database.local-1.lakebase.test"}, "wrong-host", "t HOST:"),
        ({"USER": "somebody"}, "user-not-identity", '"somebody" (from USER)'),
        ({"OPTIONS": {"sslrootcert": "/none.pem"}}, "tls-failed", "PGSSLROOTCERT"),
        (
            {"OPTIONS": {"sslrootcert": "system", "sslmode": "verify-full"}},
            "certificate-not-verified",
            "PGSSLROOTCERT",
        ),
        ({"OPTIONS": {"no_such_key": 1}}, "option-unknown", "no_such_key"),
    ],
    ids=["database", "host", "user", "no-ca-file", "other-ca", "option"],
)
def test_setting_that_the_server_rejects_is_named(
    new_wrapper, local, settings, failure_id, named
):
    """The error also names the variable."""
    wrapper = new_wrapper(**settings)
    options = wrapper.settings_dict["OPTIONS"]
    options["endpoint"] = local.facts["endpoint"]
    options["hostaddr"] = local.facts["hostaddr"]

    error = failure_of(wrapper)

    assert error.failure_id == failure_id
    assert named in str(error)


def test_closed_port_is_retried_until_the_budget_ends(new_wrapper, local):
    """The endpoint could be waking; the error names host and port."""
    wrapper = new_wrapper(PORT="1", OPTIONS={"connect_budget": 0.3})
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]))

    error = failure_of(wrapper)

    assert error.failure_id == "waking"
    assert f"{local.facts['host']}:1" in str(error)


def test_unknown_endpoint_error_names_its_setting(new_wrapper, local):
    other = local.facts["branch"] + "/endpoints/other"
    wrapper = new_wrapper(OPTIONS={"endpoint": other})

    error = failure_of(wrapper)

    assert error.failure_id == "endpoint-not-found"
    assert 'OPTIONS["endpoint"]' in str(error)


def test_unknown_profile_is_named(new_wrapper, local, tmp_path):
    file = tmp_path / "databrickscfg"
    file.write_text("[known]\nhost = https://localhost\n")
    workspace = {"profile": "unknown", "config_file": str(file)}

    error = failure_of(new_wrapper(OPTIONS={"workspace": workspace}))

    assert error.failure_id == "unknown-profile"


def test_profile_without_a_profiles_file_is_an_error(new_wrapper, local, tmp_path):
    """The SDK ignores it silently."""
    workspace = {"profile": "prod", "config_file": str(tmp_path / "none")}

    error = failure_of(new_wrapper(OPTIONS={"workspace": workspace}))

    assert error.failure_id == "unknown-profile"
    assert f"the file {tmp_path / 'none'}" in str(error)


def test_blanks_around_login_variables_are_stripped(new_wrapper, local, monkeypatch):
    """The SDK would send them."""
    for name in ("HOST", "CLIENT_ID", "CLIENT_SECRET"):
        value = local.env[f"DATABRICKS_{name}"]
        monkeypatch.setenv(f"DATABRICKS_{name}", f" {value} \n")

    assert fetch_value(new_wrapper(), "SELECT 1") == 1


def test_invalid_assume_role_error_names_alias_and_setting(new_wrapper, local):
    wrapper = new_wrapper(OPTIONS={"assume_role": "nobody-has-it"})

    error = failure_of(wrapper)

    assert error.failure_id == "assume-role-missing"
    assert 'OPTIONS["assume_role"]' in str(error)


def test_unreachable_workspace_raises_within_the_budget(
    new_wrapper, local, monkeypatch
):
    """And not after the five minutes of the SDK."""
    with local.fault("api-hang"):
        error = failure_of(new_wrapper(OPTIONS={"connect_budget": 0.5}))

    assert error.failure_id == "api-unreachable"
    assert isinstance(error.__cause__, builtins.TimeoutError)


def test_rejected_token_that_arrived_expired_is_reported_as_clock_skew(
    new_wrapper, local
):
    with (
        local.fault("clock-skew", seconds=-7200),
        local.fault("reject-logins", message="expired"),
    ):
        error = failure_of(new_wrapper())

    assert error.failure_id == "clock-skew"


def test_clock_skew_alone_is_only_a_warning(new_wrapper, local, caplog):
    """The server decides about the token; each connection costs one request."""
    with local.fault("clock-skew", seconds=-7200):
        assert fetch_value(new_wrapper(), "SELECT 1") == 1

    assert any("clock skew" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"OPTIONS": {"endpoint": "projects/only"}}, 'OPTIONS["endpoint"]'),
        ({"HOST": "instance-1.database.example.com"}, "Lakebase Provisioned"),
        ({"OPTIONS": {"sslmode": "prefer"}}, 'OPTIONS["sslmode"]'),
        ({"OPTIONS": {"workspace": {}}}, 'OPTIONS["workspace"] is empty'),
        ({"OPTIONS": {"workspace": print}}, 'OPTIONS["workspace"] is a builtin'),
        ({"OPTIONS": {"workspace": {"hots": "x"}}}, "unknown keys: hots"),
        ({"OPTIONS": {"workspace": "no.such.path"}}, "cannot be imported"),
        ({"OPTIONS": {"workspace": "builtins.list"}}, "returned a list"),
        ({"OPTIONS": {"pool": {"max_sise": 3}}}, 'OPTIONS["pool"]'),
        ({"OPTIONS": {"connect_budget": 0}}, 'OPTIONS["connect_budget"] is 0'),
        ({"PORT": "many"}, 'PORT is "many"'),
        ({"PASSWORD": "p", "USER": "u"}, "HOST is not set in the settings"),
    ],
)
def test_invalid_settings_are_rejected_before_any_request(
    new_wrapper, local, settings, expected
):
    with pytest.raises(ImproperlyConfigured) as caught:
        fetch_value(new_wrapper(**settings), "SELECT 1")

    assert str(caught.value).startswith('DATABASES["other"]: ')
    assert expected in str(caught.value)
    assert local.fetch_counters()["requests"] == {}


def test_missing_psycopg_pool_is_named(new_wrapper, local, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "django_lakebase.pool", None)
    wrapper = new_wrapper("x", OPTIONS={"pool": True})

    with pytest.raises(ImproperlyConfigured, match=r"pip install \"psycopg\[pool\]\""):
        fetch_value(wrapper, "SELECT 1")

    wrapper.settings_dict["OPTIONS"].pop("pool")


def test_error_of_driver_or_sdk_is_the_cause(new_wrapper, local):
    missing = failure_of(new_wrapper(NAME="nowhere"))
    forget_credentials()
    with local.fault("no-workspace-access"):
        rejected = failure_of(new_wrapper())

    assert isinstance(missing.__cause__, psycopg.OperationalError)
    assert isinstance(rejected.__cause__, PermissionDenied)


def test_login_is_attempted_twice_if_each_token_is_rejected(new_wrapper, local):
    wrapper = new_wrapper()
    cache_token(wrapper, local.issue_token("somebody else"))

    with local.fault("reject-logins", message="jwt"):
        failure_of(wrapper)

    assert local.fetch_counters()["rejections"] == 2


@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        ("api-429", {"retry_after": 1}),
        ("api-429", {"retry_after": 1, "scope": "all"}),
        ("api-5xx", {"status": 503}),
    ],
)
def test_brief_outage_of_the_workspace_is_retried(new_wrapper, local, fault, settings):
    """For example a rate limit or a restart."""
    with local.fault(fault, count=1, **settings):
        assert fetch_value(new_wrapper(), "SELECT 1") == 1


def test_retry_after_beyond_the_budget_raises_at_once(new_wrapper, local):
    with local.fault("api-429", retry_after=60):
        error = failure_of(new_wrapper())

    assert error.failure_id == "api-throttled"
    assert local.fetch_counters()["requests"]["/api/2.0/postgres/credentials"] == 1


def test_revoked_login_is_repeated_and_reports_the_secret(new_wrapper, local):
    """The error is about the secret, and not about the token that it had issued."""
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")
    wrapper.close()
    cache_of(wrapper).drop(cached_credential(wrapper))

    with local.fault("secret-revoked"):
        error = failure_of(wrapper)

    assert error.failure_id == "bad-client-secret"
    assert fetch_value(wrapper, "SELECT 1") == 1


def requests_for(local, path):
    """Return how many requests for *path* the API has received."""
    return local.fetch_counters()["requests"].get(path, 0)


@pytest.mark.parametrize("message", ["invalid", "expired"])
def test_token_rejected_with_403_is_replaced_by_a_new_login(
    new_wrapper, local, message
):
    """The service answers 403 as well as 401 for a token that is no longer valid."""
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")
    wrapper.close()
    cache_of(wrapper).drop(cached_credential(wrapper))
    local.reset_counters()

    with local.fault("api-token-rejected", issued_before=time.time(), message=message):
        assert fetch_value(wrapper, "SELECT 1") == 1

    assert requests_for(local, "/oidc/v1/token") == 1


def test_token_rejected_with_403_after_a_new_login_is_an_error(new_wrapper, local):
    """The hint is about the login, and not about permissions."""
    with local.fault("api-token-rejected"):
        error = failure_of(new_wrapper(OPTIONS={"connect_budget": 2}))

    assert error.failure_id == "login-token-rejected"
    assert "CAN USE" not in str(error)
    assert requests_for(local, "/oidc/v1/token") == 2
