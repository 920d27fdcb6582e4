"""The Target of settings and environment, and settings that are rejected."""

import copy
import pickle
from dataclasses import replace

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS

from django_lakebase.config import libpq
from django_lakebase.config import resolve as config
from django_lakebase.config.fill import fill_settings
from django_lakebase.config.resolve import resolve_target
from django_lakebase.config.sources import Filled

ENDPOINT = "projects/p/branches/b/endpoints/e"
ENVIRONMENT = {
    "DATABRICKS_HOST": "https://w.example.com",
    "DATABRICKS_CLIENT_ID": "client",
    "DATABRICKS_CLIENT_SECRET": "hush",
    "ENDPOINT_NAME": ENDPOINT,
    "PGHOST": "ep-a.example.com",
    "PGDATABASE": "shop",
    "PGUSER": "someone",
    "PGPORT": "6543",
    "PGSSLMODE": "verify-full",
}
OTHER = "projects/o/branches/b/endpoints/e"


def settings(**own):
    """Return settings with the keys that Django adds."""
    empty = dict.fromkeys(("NAME", "USER", "PASSWORD", "HOST", "PORT"), "")
    return {"ENGINE": "django_lakebase", **empty, "OPTIONS": {}, **own}


def target(environ=None, **own):
    """Return the Target for *own* settings, by default in the full environment."""
    return resolve_target(
        settings(**own), "default", ENVIRONMENT if environ is None else environ
    )


def settings_error(environ=None, **own):
    """Return the text of the error."""
    with pytest.raises(ImproperlyConfigured) as caught:
        target(environ, **own)
    return str(caught.value)


def test_environment_alone_is_enough():
    found = target()

    assert (found.endpoint, found.host, found.port) == (
        ENDPOINT,
        "ep-a.example.com",
        "6543",
    )
    assert (found.database, found.user, found.sslmode) == (
        "shop",
        "someone",
        "verify-full",
    )


def test_optional_variables_have_defaults():
    found = target({"ENDPOINT_NAME": ENDPOINT, "DATABRICKS_HOST": "https://w"})

    assert (found.host, found.user) == ("", "")
    assert (found.port, found.database) == ("5432", "databricks_postgres")
    assert (found.sslmode, found.sslrootcert) == ("verify-full", "system")
    assert (found.sslnegotiation, found.connect_budget) == ("auto", 20.0)


def test_alternative_variables_for_endpoint_and_user():
    """Databricks Apps sets LAKEBASE_ENDPOINT, and may not set PGUSER."""
    found = target({"LAKEBASE_ENDPOINT": ENDPOINT, "DATABRICKS_CLIENT_ID": "c"})

    assert (found.endpoint, found.user) == (ENDPOINT, "c")


def test_blanks_around_values_are_stripped():
    found = target({**ENVIRONMENT, "PGHOST": " ep-b.example.com\n"}, USER=" me ")

    assert (found.host, found.user) == ("ep-b.example.com", "me")


@pytest.mark.parametrize(
    "own",
    [
        {"HOST": "ep-o.example.com", "OPTIONS": {"endpoint": OTHER}},
        {"OPTIONS": {"endpoint": OTHER}},
    ],
    ids=["host", "endpoint"],
)
def test_endpoint_in_settings_ignores_endpoint_and_host_of_the_environment(own):
    """A token is valid for the whole workspace: the wrong host would accept it."""
    found = target(**own)

    assert found.endpoint == OTHER
    assert found.host == own.get("HOST", "")


def test_workspace_in_settings_ignores_login_and_user_of_the_environment():
    found = target(OPTIONS={"workspace": {"profile": "prod"}})

    assert found.user == ""
    assert found.login.name == 'the workspace of profile "prod"'
    assert found.login.arguments == {"profile": "prod"}


def test_user_defaults_to_the_client_id_of_the_settings():
    """No request is needed."""
    workspace = {"host": "https://o", "client_id": "them", "client_secret": "hush"}

    assert target(OPTIONS={"workspace": workspace}).user == "them"


def test_password_selects_a_native_login():
    """It needs HOST and USER, and no workspace."""
    found = target(PASSWORD="p", HOST="ep-o.example.com", USER="native")

    assert found.login is None
    assert (found.host, found.user, found.endpoint) == (
        "ep-o.example.com",
        "native",
        "",
    )
    assert "HOST is not set in the settings" in settings_error(
        PASSWORD="p", USER="native"
    )
    assert "USER is not set in the settings" in settings_error(PASSWORD="p", HOST="h")


def test_libpq_service_only_needs_sslmode():
    """Its file has the host, port, database and user."""
    found = target({}, OPTIONS={"service": "own", "sslmode": "verify-full"})

    assert (found.host, found.port, found.user) == ("", "", "")
    text = settings_error({}, OPTIONS={"service": "own"})
    assert 'OPTIONS["service"] is "own", but OPTIONS["sslmode"] is not set' in text
    assert "remove" not in text


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_weak_sslmode_is_rejected(mode):
    """The error names the setting or the variable."""
    assert 'OPTIONS["sslmode"]' in settings_error(OPTIONS={"sslmode": mode})
    assert f'PGSSLMODE is "{mode}"' in settings_error(
        {**ENVIRONMENT, "PGSSLMODE": mode}
    )


@pytest.mark.parametrize("host", ["/var/run/postgresql", "@abstract"])
def test_local_socket_as_host_is_rejected(host):
    """Libpq uses no TLS there, whatever sslmode says."""
    assert f'PGHOST is "{host}"' in settings_error({**ENVIRONMENT, "PGHOST": host})


@pytest.mark.parametrize("port", ["0", "65536", "5432a", "-1"])
def test_invalid_port_is_rejected(port):
    assert f'PGPORT is "{port}"' in settings_error({**ENVIRONMENT, "PGPORT": port})


@pytest.mark.parametrize("budget", [0, -1, "soon", "nan", True, float("inf")])
def test_invalid_connect_budget_is_rejected(budget):
    assert 'OPTIONS["connect_budget"]' in settings_error(
        OPTIONS={"connect_budget": budget}
    )


def test_missing_endpoint_error_shows_the_format():
    assert "projects/<id>/branches/<id>/endpoints/<id>" in settings_error({})


@pytest.mark.parametrize("name", ["primary", "projects/a", f"{ENDPOINT}/x", "a b", "/"])
def test_malformed_endpoint_is_rejected_without_a_request(name):
    assert f'ENDPOINT_NAME is "{name}"' in settings_error(
        {**ENVIRONMENT, "ENDPOINT_NAME": name}
    )


@pytest.mark.parametrize("workspace", [{}, [1], 5], ids=repr)
def test_workspace_must_be_a_dict_or_an_import_path(workspace):
    """A callable could not be pickled for spawned workers."""
    assert 'OPTIONS["workspace"]' in settings_error(OPTIONS={"workspace": workspace})


def test_filled_values_are_replaced_when_the_environment_changes():
    """Filling is idempotent."""
    own = settings()
    fill_settings(own, "default", ENVIRONMENT)
    assert (own["NAME"], own["HOST"]) == ("shop", "ep-a.example.com")
    assert isinstance(own["NAME"], Filled)

    fill_settings(own, "default", {**ENVIRONMENT, "PGDATABASE": "other"})

    assert own["NAME"] == "other"
    assert resolve_target(own, "default", ENVIRONMENT).endpoint == ENDPOINT


def test_filled_values_survive_copy_and_pickle():
    """Django copies settings, and pickles them for spawned workers."""
    own = settings()
    fill_settings(own, "default", ENVIRONMENT)

    copies = [copy.deepcopy(own), pickle.loads(pickle.dumps(own))]  # noqa: S301 - ours.

    assert all(isinstance(other["HOST"], Filled) for other in copies)


def test_maintenance_connection_keeps_name_none():
    """Django uses None for the postgres database."""
    found = resolve_target(settings(NAME=None), NO_DB_ALIAS, ENVIRONMENT)

    assert found.database is None
    assert "postgres" in found.label


def test_password_is_never_filled_in():
    """PGPASSWORD is ignored, too."""
    own = settings()
    fill_settings(own, "default", {**ENVIRONMENT, "PGPASSWORD": "hush"})

    assert own["PASSWORD"] == ""


def test_targets_are_equal_if_all_settings_are_equal():
    """Equal targets share a pool."""
    same = target(OPTIONS={"options": "-c a=b", "pool": {"min_size": 1}})

    assert same == target(OPTIONS={"pool": {"min_size": 1}, "options": "-c a=b"})
    assert hash(same) == hash(copy.copy(same))
    assert same != target(OPTIONS={"options": "-c a=c", "pool": {"min_size": 1}})
    assert same != target({**ENVIRONMENT, "DATABRICKS_CLIENT_SECRET": "other"})


def test_native_password_is_compared_but_not_shown():
    """Another password needs another pool."""
    own = {"HOST": "h", "USER": "u"}

    first, second = target(PASSWORD="hush", **own), target(PASSWORD="hist", **own)

    assert first != second
    assert "hush" not in repr(first)


def test_targets_with_unhashable_options_can_be_compared():
    """Lists, sets and objects included."""
    odd = {"a": [1, {"b": {2}}], "c": object(), "d": None}

    assert target(OPTIONS=odd) == target(OPTIONS=odd)


def test_lakebase_hostaddr_is_ignored_for_another_endpoint():
    """It must not lead connections of another database to the wrong server."""
    environ = {**ENVIRONMENT, "LAKEBASE_HOSTADDR": "127.0.0.1"}

    assert target(environ).hostaddr == "127.0.0.1"
    assert target(environ, OPTIONS={"endpoint": OTHER}).hostaddr == ""
    own = target(environ, OPTIONS={"endpoint": OTHER, "hostaddr": "127.0.0.2"})
    assert own.hostaddr == "127.0.0.2"


def test_host_is_normalised():
    """The service compares the name in TLS as it is, in lower case."""
    assert target(HOST="EP-A.example.com , ep-B.example.com").host == (
        "ep-a.example.com,ep-b.example.com"
    )


@pytest.mark.parametrize("addresses", ["127.0.0.1,::1", "fe80::1%eth0", "10.0.0.1, "])
def test_hostaddr_may_list_several_addresses(addresses):
    """Libpq chooses one."""
    assert target(OPTIONS={"hostaddr": addresses}).hostaddr == addresses.strip()


def test_invalid_hostaddr_error_names_its_variable():
    """HOST is valid, so the error does not name it."""
    text = settings_error({**ENVIRONMENT, "LAKEBASE_HOSTADDR": "ep-a.example.com"})

    assert 'LAKEBASE_HOSTADDR is "ep-a.example.com"' in text


def test_options_must_be_a_dict():
    """A hand-written URL parser may return a string."""
    assert "OPTIONS is a str" in settings_error(OPTIONS="sslmode=require")


def test_list_of_the_engines_options():
    """The engine, the checks and the documentation use the same list."""
    assert config.OWN_OPTIONS == (
        "workspace",
        "endpoint",
        "connect_budget",
        "reconnect",
        "refresh_before_fork",
        "sslnegotiation",
        "schema",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
    )


def test_password_login_verifies_nothing_by_default():
    """SCRAM sends no password. A token as the password is sent, so it is verified."""
    native = {"HOST": "h", "USER": "u"}

    found = target({}, **native, PASSWORD="native")
    token = target({}, **native, PASSWORD="eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.abc")

    assert (found.sslmode, found.sslrootcert) == ("require", "")
    assert (token.sslmode, token.sslrootcert) == ("verify-full", "system")


def test_unknown_sslnegotiation_is_rejected():
    text = settings_error(OPTIONS={"sslnegotiation": "never"})

    assert 'OPTIONS["sslnegotiation"] is "never"' in text
    assert "auto, direct, postgres" in text


def test_direct_tls_needs_libpq_17(monkeypatch):
    """Older versions reject the parameter, with a message that names no version."""
    monkeypatch.setattr(libpq, "keywords", lambda: frozenset({"host"}))
    monkeypatch.setattr(psycopg.pq, "version", lambda: 160004)

    text = settings_error(OPTIONS={"sslnegotiation": "direct"})

    assert 'OPTIONS["sslnegotiation"] is "direct"' in text
    assert "libpq 16" in text
    assert target(OPTIONS={"sslnegotiation": "auto"}).sslnegotiation == "auto"


def test_unknown_sslmode_is_rejected():
    """Before anything connects; the error names the variable."""
    assert 'PGSSLMODE is "verify"' in settings_error(
        {**ENVIRONMENT, "PGSSLMODE": "verify"}
    )


@pytest.mark.parametrize(
    "host", ["ep-a.example.com", "EP-A.example.com", " ep-a.example.com "]
)
def test_host_equal_to_pghost_uses_the_endpoint_of_the_environment(host):
    """Most projects write ``"HOST": os.environ["PGHOST"]``."""
    found = target({**ENVIRONMENT, "LAKEBASE_HOSTADDR": "10.0.0.1"}, HOST=host)

    assert (found.endpoint, found.hostaddr) == (ENDPOINT, "10.0.0.1")
    assert found.endpoint_setting == "ENDPOINT_NAME"


def test_other_host_ignores_the_endpoint_of_the_environment():
    """The workspace is asked for its endpoint instead."""
    found = target(HOST="ep-o.example.com")

    assert (found.endpoint, found.endpoint_setting) == ("", "")
    assert (found.host, found.host_setting) == ("ep-o.example.com", "HOST")
    assert (
        target(HOST="ep-o.example.com", OPTIONS={"endpoint": OTHER}).endpoint == OTHER
    )
    assert target(HOST="").endpoint == ENDPOINT


@pytest.mark.parametrize("host", ["", "EP-A.example.com"])
def test_host_alone_is_enough(host):
    """In PGHOST, or in HOST and PGHOST."""
    found = target({"PGHOST": "ep-a.example.com"}, HOST=host)

    assert found.endpoint == ""
    assert found.host.lower() == "ep-a.example.com"
    assert found.host_setting == "PGHOST"


def test_hint_for_a_missing_endpoint_names_only_variables_that_are_read():
    """Each of them leads to a Target."""
    text = settings_error({})

    for name in ("PGHOST", *config.ENDPOINT_VARIABLES):
        assert name in text
        assert target({name: ENDPOINT if name != "PGHOST" else "h"})


PROVISIONED = "instance-2f6c1f3a-0d3e-4f8c-9d0f-1e2d3c4b5a69.database.cloud.test"


@pytest.mark.parametrize(
    ("environ", "own", "shown"),
    [
        ({"PGHOST": PROVISIONED}, {}, ("PGHOST", "ENDPOINT_NAME")),
        ({"PGHOST": PROVISIONED}, {"HOST": PROVISIONED}, ("HOST", "ENDPOINT_NAME")),
        (ENVIRONMENT, {"HOST": PROVISIONED.upper()}, ("HOST", 'OPTIONS["endpoint"]')),
    ],
)
def test_host_of_a_provisioned_instance_is_rejected(environ, own, shown):
    """The hint names what is read in this situation."""
    text = settings_error(environ, **own)

    assert f'{shown[0]} is "{own.get("HOST", PROVISIONED)}"' in text
    assert f"or {shown[1]} to projects/" in text


def test_host_of_a_provisioned_instance_works_with_an_endpoint_or_a_password():
    """An upgraded instance may keep its host."""
    assert target({"PGHOST": PROVISIONED, "PGENDPOINT": ENDPOINT}).host == PROVISIONED
    assert target({}, HOST=PROVISIONED, USER="u", PASSWORD="p").host == PROVISIONED


@pytest.mark.parametrize("name", config.ENDPOINT_VARIABLES)
def test_endpoint_is_read_from_each_of_its_variables(name):
    """The guide, Node.js kit, Python templates and agent templates differ."""
    found = target({name: f" '{ENDPOINT}/' "})

    assert (found.endpoint, found.endpoint_setting) == (ENDPOINT, name)


def test_different_endpoint_variables_are_an_error_that_names_both():
    """One of them belongs to another database."""
    text = settings_error({"ENDPOINT_NAME": ENDPOINT, "PGENDPOINT": OTHER})

    assert f'ENDPOINT_NAME is "{ENDPOINT}", PGENDPOINT is "{OTHER}"' in text
    assert target({"ENDPOINT_NAME": ENDPOINT, "PGENDPOINT": ENDPOINT}).endpoint


@pytest.mark.parametrize("quoted", ['"{}"', "'{}'", ' "{}" ', "\"'{}'\""])
@pytest.mark.parametrize(
    "name", [n for n in ENVIRONMENT if n != "DATABRICKS_CLIENT_SECRET"]
)
def test_quotes_around_a_variable_are_stripped(name, quoted):
    """``docker run --env-file`` keeps them."""
    assert target({**ENVIRONMENT, name: quoted.format(ENVIRONMENT[name])}) == replace(
        target(),
        login=target({**ENVIRONMENT, name: quoted.format(ENVIRONMENT[name])}).login,
    )


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("https://w.example.com/?o=123", "https://w.example.com"),
        ("https://w.example.com/browse?o=123#x", "https://w.example.com"),
        ("w.example.com/?o=123", "w.example.com"),
        ("https://w.example.com:8443/", "https://w.example.com:8443"),
    ],
)
def test_path_and_query_of_a_workspace_url_are_cut(given, url):
    """Users copy the URL from a browser; error texts show the short one."""
    assert target({**ENVIRONMENT, "DATABRICKS_HOST": given}).login.url == url
    workspace = {"host": given, "client_id": "c", "client_secret": "s"}
    assert target(OPTIONS={"workspace": workspace}).login.url == url


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("DATABRICKS_HOST", "jdbc:databricks://w.example.com:443", "jdbc:databricks:"),
        (
            "DATABRICKS_HOST",
            "https://me:hush@w.example.com",
            "https://***@w.example.com",
        ),
        ("PGHOST", "postgresql://me:hush@h/db", "postgresql://***@h/db"),
        ("PGHOST", "host=h port=1", "host=h port=1"),
        (
            "PGHOST",
            "ep-a.example.com:5433",
            'Set PGHOST to "ep-a.example.com", and PORT',
        ),
        ("PGDATABASE", "postgresql://me:hush@h/db", "postgresql://***@h/db"),
        ("PGUSER", "postgresql://me:hush@h/db", "postgresql://***@h/db"),
        ("PGCONNECT_TIMEOUT", "soon", '"soon"'),
    ],
)
def test_invalid_value_error_names_the_variable_and_hides_secrets(name, value, shown):
    text = settings_error({**ENVIRONMENT, name: value})

    assert f'{name} is "' in text
    assert shown in text
    assert "hush" not in text


def test_host_may_be_a_web_address():
    """Copied from a page, and with nothing but a host."""
    assert target({**ENVIRONMENT, "PGHOST": "https://ep-a.example.com/"}).host == (
        "ep-a.example.com"
    )


@pytest.mark.parametrize(
    ("mode", "rootcert", "expected"),
    [
        ("", "", ("verify-full", "system")),
        ("", "/ca.pem", ("verify-full", "/ca.pem")),
        ("require", "", ("require", "")),
        ("", "system", ("verify-full", "system")),
        ("verify-full", "", ("verify-full", "system")),
        ("VERIFY-FULL", "/ca.pem", ("verify-full", "/ca.pem")),
    ],
)
def test_sslmode_or_sslrootcert_alone_selects_full_verification(
    mode, rootcert, expected
):
    """A certificate file in HOME is never used."""
    found = target(
        {"ENDPOINT_NAME": ENDPOINT, "PGSSLMODE": mode, "PGSSLROOTCERT": rootcert}
    )

    assert (found.sslmode, found.sslrootcert) == expected


@pytest.mark.parametrize(
    ("mode", "rootcert"),
    [("require", "system"), ("verify-ca", "system"), ("verify-ca", "")],
)
def test_system_certificates_require_verify_full(mode, rootcert):
    """As in libpq: any public certificate would pass otherwise."""
    own = {"sslmode": mode, "sslrootcert": rootcert}

    assert "verify-full" in settings_error({"ENDPOINT_NAME": ENDPOINT}, OPTIONS=own)


def test_quotes_around_the_client_id_in_settings_are_stripped():
    workspace = {"host": "https://o", "client_id": '"them"', "client_secret": "hush"}

    assert target(OPTIONS={"workspace": workspace}).user == "them"
