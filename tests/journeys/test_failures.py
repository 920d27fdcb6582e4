"""Each failure that can be had: what user code gets, and that it holds no secret."""

import builtins
import time

import psycopg
import pytest
from databricks.sdk.errors import PermissionDenied
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from django_lakebase.connection import LakebaseError
from tests.support import cache_of, forget_all, one, put


def failure_of(wrapper):
    """Return the error that a query ends in."""
    with pytest.raises(OperationalError) as caught:
        one(wrapper, "SELECT 1")
    error = caught.value
    assert isinstance(error, LakebaseError)
    assert error.__cause__ is not None
    assert f'DATABASES["{wrapper.alias}"]' in str(error)
    return error


@pytest.mark.parametrize(
    ("fault", "settings", "failure_id", "mend"),
    [
        ("api-down", {}, "api-unreachable", "DATABRICKS_HOST"),
        ("api-5xx", {"status": 503}, "api-unreachable", "DATABRICKS_HOST"),
        ("secret-revoked", {}, "bad-client-secret", "DATABRICKS_CLIENT_SECRET"),
        ("no-workspace-access", {}, "workspace-access-missing", "workspace admin"),
        ("empty-credential", {}, "empty-credential", "Databricks support"),
        ("role-missing", {}, "role-missing", "databricks_create_role"),
        (
            "refuse-logins",
            {"message": "jwt"},
            "token-refused",
            "databricks_create_role",
        ),
        ("refuse-logins", {"message": "expired"}, "token-expired", "timedatectl"),
        (
            "refuse-logins",
            {"message": "password"},
            "token-refused",
            "databricks_create",
        ),
        ("refuse-logins", {"message": "label"}, "wrong-user", "PGUSER"),
        ("refuse-logins", {"message": "decode"}, "token-refused", "databricks_create"),
        ("refuse-logins", {"message": "sasl"}, "pooled-host", "-pooler"),
        ("refuse-logins", {"message": "disabled"}, "endpoint-disabled", "Enable it"),
        (
            "refuse-logins",
            {"message": "too-many"},
            "too-many-connections",
            "pool sizes",
        ),
        ("refuse-logins", {"message": "unknown"}, "unexplained", "lakebase_check"),
    ],
)
def test_faults_of_the_service(new_wrapper, local, fault, settings, failure_id, mend):
    """What the service does is named, with the next step."""
    with local.fault(fault, **settings):
        error = failure_of(new_wrapper(OPTIONS={"connect_budget": 2}))

    assert error.failure_id == failure_id
    assert mend in str(error)


@pytest.mark.parametrize(
    ("settings", "failure_id", "named"),
    [
        ({"NAME": "nowhere"}, "database-missing", "PGDATABASE"),
        ({"HOST": "ep-none.database.local-1.lakebase.test"}, "wrong-host", "PGHOST"),
        ({"USER": "somebody"}, "user-not-identity", '"somebody" (from USER)'),
        ({"OPTIONS": {"sslrootcert": "/none.pem"}}, "tls-refused", "PGSSLROOTCERT"),
        (
            {"OPTIONS": {"sslrootcert": "system", "sslmode": "verify-full"}},
            "tls-refused",
            "PGSSLROOTCERT",
        ),
        ({"OPTIONS": {"no_such_key": 1}}, "option-unknown", "no_such_key"),
    ],
    ids=["database", "host", "user", "no-ca-file", "other-ca", "option"],
)
def test_mistakes_in_the_settings(new_wrapper, local, settings, failure_id, named):
    """What only the server can find wrong names the setting and the variable."""
    wrapper = new_wrapper(**settings)
    options = wrapper.settings_dict["OPTIONS"]
    options["endpoint"] = local.facts["endpoint"]
    options["hostaddr"] = local.facts["hostaddr"]

    error = failure_of(wrapper)

    assert error.failure_id == failure_id
    assert named in str(error)


def test_a_port_where_nobody_listens(new_wrapper, local):
    """It could be waking, so it is waited for; the error names host and port."""
    wrapper = new_wrapper(PORT="1", OPTIONS={"connect_budget": 0.3})
    put(wrapper, local.issue(local.facts["service_principal"]))

    error = failure_of(wrapper)

    assert error.failure_id == "waking"
    assert f"{local.facts['host']}:1" in str(error)


def test_an_endpoint_that_the_workspace_does_not_know(new_wrapper, local):
    """The setting that named it is named."""
    other = local.facts["branch"] + "/endpoints/other"
    wrapper = new_wrapper(OPTIONS={"endpoint": other})

    error = failure_of(wrapper)

    assert error.failure_id == "endpoint-not-found"
    assert 'OPTIONS["endpoint"]' in str(error)


def test_an_unknown_profile(new_wrapper, local, tmp_path):
    """A profile that the SDK's file lacks is named as such."""
    file = tmp_path / "databrickscfg"
    file.write_text("[known]\nhost = https://localhost\n")
    workspace = {"profile": "unknown", "config_file": str(file)}

    error = failure_of(new_wrapper(OPTIONS={"workspace": workspace}))

    assert error.failure_id == "unknown-profile"


def test_a_profile_without_a_file(new_wrapper, local, tmp_path):
    """The SDK passes over it in silence, and we do not."""
    workspace = {"profile": "prod", "config_file": str(tmp_path / "none")}

    error = failure_of(new_wrapper(OPTIONS={"workspace": workspace}))

    assert error.failure_id == "unknown-profile"
    assert f"there is no file {tmp_path / 'none'}" in str(error)


def test_blanks_around_the_variables_of_the_login(new_wrapper, local, monkeypatch):
    """They come with pasting, and the SDK would send them."""
    for name in ("HOST", "CLIENT_ID", "CLIENT_SECRET"):
        value = local.env[f"DATABRICKS_{name}"]
        monkeypatch.setenv(f"DATABRICKS_{name}", f" {value} \n")

    assert one(new_wrapper(), "SELECT 1") == 1


def test_a_role_that_cannot_be_assumed(new_wrapper, local):
    """Without a pool too: the alias and the setting are named."""
    wrapper = new_wrapper(OPTIONS={"assume_role": "nobody-has-it"})

    error = failure_of(wrapper)

    assert error.failure_id == "setup-failed"
    assert 'OPTIONS["assume_role"]' in str(error)


def test_an_unreachable_workspace_takes_no_longer_than_it_may(
    new_wrapper, local, monkeypatch
):
    """An address that never answers ends in an error, not in five minutes."""
    with local.fault("api-silent"):
        error = failure_of(new_wrapper(OPTIONS={"connect_budget": 0.5}))

    assert error.failure_id == "api-unreachable"
    assert isinstance(error.__cause__, builtins.TimeoutError)


def test_clock_skew_is_named_when_the_token_looks_expired(new_wrapper, local):
    """An expiry in the past, on arrival, is the clock's fault and not the token's."""
    with (
        local.fault("clock-skew", seconds=-7200),
        local.fault("refuse-logins", message="expired"),
    ):
        error = failure_of(new_wrapper())

    assert error.failure_id == "clock-skew"


def test_clock_skew_alone_is_only_a_warning(new_wrapper, local, caplog):
    """The server decides about a token; a wrong clock here costs a request each."""
    with local.fault("clock-skew", seconds=-7200):
        assert one(new_wrapper(), "SELECT 1") == 1

    assert any("clock skew" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"OPTIONS": {"endpoint": "projects/only"}}, 'OPTIONS["endpoint"]'),
        ({"HOST": "ep-x.example.com"}, "ENDPOINT_NAME is read only where HOST"),
        ({"OPTIONS": {"sslmode": "prefer"}}, 'OPTIONS["sslmode"]'),
        ({"OPTIONS": {"workspace": {}}}, 'OPTIONS["workspace"] is empty'),
        ({"OPTIONS": {"workspace": print}}, 'OPTIONS["workspace"] is a builtin'),
        ({"OPTIONS": {"workspace": {"hots": "x"}}}, "unknown keys: hots"),
        ({"OPTIONS": {"workspace": "no.such.path"}}, "cannot be imported"),
        ({"OPTIONS": {"workspace": "builtins.list"}}, "returned a list"),
        ({"OPTIONS": {"pool": {"max_sise": 3}}}, 'OPTIONS["pool"]'),
        ({"OPTIONS": {"connect_budget": 0}}, 'OPTIONS["connect_budget"] is 0'),
        ({"PORT": "many"}, 'PORT is "many"'),
        ({"PASSWORD": "p", "USER": "u"}, "HOST is not in the settings"),
    ],
)
def test_settings_that_are_wrong_by_themselves(new_wrapper, local, settings, expected):
    """They are refused before any request is made."""
    with pytest.raises(ImproperlyConfigured) as caught:
        one(new_wrapper(**settings), "SELECT 1")

    assert str(caught.value).startswith('DATABASES["other"]: ')
    assert expected in str(caught.value)
    assert local.counters()["requests"] == {}


def test_psycopg_pool_that_is_not_installed(new_wrapper, local, monkeypatch):
    """The package to install is named."""
    monkeypatch.setitem(__import__("sys").modules, "django_lakebase.pool", None)
    wrapper = new_wrapper("x", OPTIONS={"pool": True})

    with pytest.raises(ImproperlyConfigured, match=r"pip install \"psycopg\[pool\]\""):
        one(wrapper, "SELECT 1")

    wrapper.settings_dict["OPTIONS"].pop("pool")


def test_the_original_error_is_the_cause(new_wrapper, local):
    """Whoever looks for the driver's or the SDK's error finds it."""
    missing = failure_of(new_wrapper(NAME="nowhere"))
    forget_all()
    with local.fault("no-workspace-access"):
        refused = failure_of(new_wrapper())

    assert isinstance(missing.__cause__, psycopg.OperationalError)
    assert isinstance(refused.__cause__, PermissionDenied)


def test_a_refused_token_is_not_tried_for_ever(new_wrapper, local):
    """Two refusals are enough."""
    wrapper = new_wrapper()
    put(wrapper, local.issue("somebody else"))

    with local.fault("refuse-logins", message="jwt"):
        failure_of(wrapper)

    assert local.counters()["refusals"] == 2


@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        ("api-429", {"retry_after": 1}),
        ("api-429", {"retry_after": 1, "path": "all"}),
        ("api-5xx", {"status": 503}),
    ],
)
def test_a_workspace_that_fails_for_a_moment_is_asked_again(
    new_wrapper, local, fault, settings
):
    """A request too many, or a restart over there, is no error here."""
    with local.fault(fault, count=1, **settings):
        assert one(new_wrapper(), "SELECT 1") == 1


def test_a_workspace_that_wants_to_be_left_alone_for_long_is(new_wrapper, local):
    """Where Retry-After reaches beyond the budget, the error comes at once."""
    with local.fault("api-429", retry_after=60):
        error = failure_of(new_wrapper())

    assert error.failure_id == "api-throttled"
    assert local.counters()["requests"]["/api/2.0/postgres/credentials"] == 1


def test_a_login_that_is_not_accepted_any_more_is_made_again(new_wrapper, local):
    """What is refused is the secret then, and not the token made with it."""
    wrapper = new_wrapper()
    one(wrapper, "SELECT 1")
    wrapper.close()
    cache_of(wrapper).drop(cache_of(wrapper).ready())

    with local.fault("secret-revoked"):
        error = failure_of(wrapper)

    assert error.failure_id == "bad-client-secret"
    assert one(wrapper, "SELECT 1") == 1


def requests_for(local, path):
    """Return how many requests the API has received for *path*."""
    return local.counters()["requests"].get(path, 0)


@pytest.mark.parametrize("text", ["invalid", "expired"])
def test_token_refused_with_403_is_replaced_by_a_new_login(new_wrapper, local, text):
    """The service answers 403 as well as 401 for a token that is no longer valid."""
    wrapper = new_wrapper()
    one(wrapper, "SELECT 1")
    wrapper.close()
    cache_of(wrapper).drop(cache_of(wrapper).ready())
    local.reset_counters()

    with local.fault("dead-token", before=time.time(), text=text):
        assert one(wrapper, "SELECT 1") == 1

    assert requests_for(local, "/oidc/v1/token") == 1


def test_token_refused_with_403_after_a_new_login_is_reported(new_wrapper, local):
    """The hint is about the login, and nobody is told to grant a permission."""
    with local.fault("dead-token"):
        error = failure_of(new_wrapper(OPTIONS={"connect_budget": 2}))

    assert error.failure_id == "token-unaccepted"
    assert "CAN USE" not in str(error)
    assert requests_for(local, "/oidc/v1/token") == 2
