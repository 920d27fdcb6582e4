"""Settings and environment: what is read from where, and what is refused."""

import copy
import pickle
from dataclasses import replace

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS

from django_lakebase import config
from django_lakebase.config import Filled, fill, read

ENDPOINT = "projects/p/branches/b/endpoints/e"
NINE = {
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
    """Return settings as Django completes them."""
    empty = dict.fromkeys(("NAME", "USER", "PASSWORD", "HOST", "PORT"), "")
    return {"ENGINE": "django_lakebase", **empty, "OPTIONS": {}, **own}


def target(environ=None, **own):
    """Return the Target of *own* settings in the environment of all nine."""
    return read(settings(**own), "default", NINE if environ is None else environ)


def refused(environ=None, **own):
    """Return the text of the error."""
    with pytest.raises(ImproperlyConfigured) as caught:
        target(environ, **own)
    return str(caught.value)


def test_the_variables_alone_are_enough():
    """Nothing but ENGINE needs to be in the settings."""
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


def test_without_the_optional_ones_there_are_defaults():
    """Three for the login and one for the endpoint are enough."""
    found = target({"ENDPOINT_NAME": ENDPOINT, "DATABRICKS_HOST": "https://w"})

    assert (found.host, found.user) == ("", "")
    assert (found.port, found.database) == ("5432", "databricks_postgres")
    assert (found.sslmode, found.connect_budget) == ("require", 20.0)


def test_the_second_name_of_the_endpoint_and_of_the_user():
    """Databricks Apps say LAKEBASE_ENDPOINT, and PGUSER may be absent."""
    found = target({"LAKEBASE_ENDPOINT": ENDPOINT, "DATABRICKS_CLIENT_ID": "c"})

    assert (found.endpoint, found.user) == (ENDPOINT, "c")


def test_blanks_around_values_are_cut():
    """They come with pasting."""
    found = target({**NINE, "PGHOST": " ep-b.example.com\n"}, USER=" me ")

    assert (found.host, found.user) == ("ep-b.example.com", "me")


@pytest.mark.parametrize(
    "own",
    [
        {"HOST": "ep-o.example.com", "OPTIONS": {"endpoint": OTHER}},
        {"OPTIONS": {"endpoint": OTHER}},
    ],
    ids=["host", "endpoint"],
)
def test_settings_that_name_an_endpoint_read_none_from_the_environment(own):
    """A token is good in the whole workspace: a wrong host would take it."""
    found = target(**own)

    assert found.endpoint == OTHER
    assert found.host == own.get("HOST", "")


def test_settings_that_name_a_workspace_read_no_login_from_the_environment():
    """Neither the user nor anything of the SDK's."""
    found = target(OPTIONS={"workspace": {"profile": "prod"}})

    assert found.user == ""
    assert found.login.words == 'the workspace of profile "prod"'
    assert found.login.arguments == {"profile": "prod"}


def test_the_user_of_a_workspace_in_the_settings_is_its_client():
    """It is known without asking."""
    workspace = {"host": "https://o", "client_id": "them", "client_secret": "hush"}

    assert target(OPTIONS={"workspace": workspace}).user == "them"


def test_a_password_means_a_native_login():
    """It asks no workspace, and needs to know where and who."""
    found = target(PASSWORD="p", HOST="ep-o.example.com", USER="native")

    assert found.is_native
    assert (found.host, found.user, found.endpoint) == (
        "ep-o.example.com",
        "native",
        "",
    )
    assert "HOST is not in the settings" in refused(PASSWORD="p", USER="native")
    assert "USER is not in the settings" in refused(PASSWORD="p", HOST="h")


def test_a_service_is_left_to_libpq():
    """Its file knows host, port, database and user; TLS must still be said."""
    found = target({}, OPTIONS={"service": "own", "sslmode": "verify-full"})

    assert (found.host, found.port, found.user) == ("", "", "")
    assert "sslmode" in refused({}, OPTIONS={"service": "own"})


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_weak_sslmodes_are_refused_from_wherever(mode):
    """The setting or the variable is named."""
    assert 'OPTIONS["sslmode"]' in refused(OPTIONS={"sslmode": mode})
    assert f'PGSSLMODE is "{mode}"' in refused({**NINE, "PGSSLMODE": mode})


@pytest.mark.parametrize("host", ["/var/run/postgresql", "@abstract"])
def test_a_token_does_not_go_to_a_local_socket(host):
    """Libpq uses no TLS there, whatever sslmode says."""
    assert f'PGHOST is "{host}"' in refused({**NINE, "PGHOST": host})


@pytest.mark.parametrize("port", ["0", "65536", "5432a", "-1"])
def test_ports_are_numbers(port):
    """The variable is named."""
    assert f'PGPORT is "{port}"' in refused({**NINE, "PGPORT": port})


@pytest.mark.parametrize("budget", [0, -1, "soon", "nan", True, float("inf")])
def test_the_budget_is_a_number_of_seconds(budget):
    """Nothing else makes sense."""
    assert 'OPTIONS["connect_budget"]' in refused(OPTIONS={"connect_budget": budget})


def test_an_endpoint_is_needed():
    """The error tells the format."""
    assert "projects/<id>/branches/<id>/endpoints/<id>" in refused({})


@pytest.mark.parametrize("name", ["primary", "projects/a", f"{ENDPOINT}/x", "a b"])
def test_the_endpoint_s_form_is_checked(name):
    """Before anybody is asked about it."""
    assert f'ENDPOINT_NAME is "{name}"' in refused({**NINE, "ENDPOINT_NAME": name})


@pytest.mark.parametrize("workspace", [{}, [1], 5], ids=repr)
def test_a_workspace_is_a_dict_or_a_path(workspace):
    """A callable itself could not be given to spawned workers."""
    assert 'OPTIONS["workspace"]' in refused(OPTIONS={"workspace": workspace})


def test_what_is_filled_is_known_from_what_was_written():
    """Filling twice, or after a change of the environment, is right too."""
    own = settings()
    fill(own, "default", NINE)
    assert (own["NAME"], own["HOST"]) == ("shop", "ep-a.example.com")
    assert isinstance(own["NAME"], Filled)

    fill(own, "default", {**NINE, "PGDATABASE": "other"})

    assert own["NAME"] == "other"
    assert read(own, "default", NINE).endpoint == ENDPOINT


def test_filled_values_can_be_copied_and_sent():
    """Django copies settings, and pickles them for spawned workers."""
    own = settings()
    fill(own, "default", NINE)

    copies = [copy.deepcopy(own), pickle.loads(pickle.dumps(own))]  # noqa: S301 - ours.

    assert all(isinstance(other["HOST"], Filled) for other in copies)


def test_the_maintenance_connection_keeps_its_missing_name():
    """None is Django's word for the postgres database."""
    found = read(settings(NAME=None), NO_DB_ALIAS, NINE)

    assert found.database is None
    assert "postgres" in found.label


def test_no_password_is_ever_filled_in():
    """Not even one that libpq would read."""
    own = settings()
    fill(own, "default", {**NINE, "PGPASSWORD": "hush"})

    assert own["PASSWORD"] == ""


def test_targets_are_equal_if_all_is():
    """Pools are shared by this."""
    same = target(OPTIONS={"options": "-c a=b", "pool": {"min_size": 1}})

    assert same == target(OPTIONS={"pool": {"min_size": 1}, "options": "-c a=b"})
    assert hash(same) == hash(copy.copy(same))
    assert same != target(OPTIONS={"options": "-c a=c", "pool": {"min_size": 1}})
    assert same != target({**NINE, "DATABRICKS_CLIENT_SECRET": "other"})


def test_a_native_password_is_part_of_a_target_and_not_seen():
    """Another password is another pool."""
    own = {"HOST": "h", "USER": "u"}

    first, second = target(PASSWORD="hush", **own), target(PASSWORD="hist", **own)

    assert first != second
    assert "hush" not in repr(first)


def test_options_of_any_kind_can_be_compared():
    """Lists, sets and objects included."""
    odd = {"a": [1, {"b": {2}}], "c": object(), "d": None}

    assert target(OPTIONS=odd) == target(OPTIONS=odd)


def test_the_local_address_belongs_to_the_endpoint():
    """LAKEBASE_HOSTADDR must not lead another database's connections astray."""
    environ = {**NINE, "LAKEBASE_HOSTADDR": "127.0.0.1"}

    assert target(environ).hostaddr == "127.0.0.1"
    assert target(environ, OPTIONS={"endpoint": OTHER}).hostaddr == ""
    own = target(environ, OPTIONS={"endpoint": OTHER, "hostaddr": "127.0.0.2"})
    assert own.hostaddr == "127.0.0.2"


@pytest.mark.parametrize("addresses", ["127.0.0.1,::1", "fe80::1%eth0", "10.0.0.1, "])
def test_addresses_of_several_hosts(addresses):
    """They are libpq's to choose from."""
    assert target(OPTIONS={"hostaddr": addresses}).hostaddr == addresses.strip()


def test_an_address_that_is_none_is_named():
    """Not HOST, which is right."""
    text = refused({**NINE, "LAKEBASE_HOSTADDR": "ep-a.example.com"})

    assert 'LAKEBASE_HOSTADDR is "ep-a.example.com"' in text


def test_options_that_are_no_dict_are_refused():
    """As a string they come from a URL that was put together by hand."""
    assert "OPTIONS is a str" in refused(OPTIONS="sslmode=require")


def test_our_options_are_all_known_to_the_rest():
    """One list serves the engine, the checks and the documentation."""
    assert config.OWN_OPTIONS == (
        "workspace",
        "endpoint",
        "connect_budget",
        "reconnect",
        "refresh_before_fork",
    )


def test_an_sslmode_that_libpq_does_not_know_is_refused():
    """Before anything connects, with the variable's name."""
    assert 'PGSSLMODE is "verify"' in refused({**NINE, "PGSSLMODE": "verify"})


@pytest.mark.parametrize(
    "host", ["ep-a.example.com", "EP-A.example.com", " ep-a.example.com "]
)
def test_host_that_is_pghost_reads_the_endpoint_of_the_environment(host):
    """``"HOST": os.environ["PGHOST"]`` is how most projects write it."""
    found = target({**NINE, "LAKEBASE_HOSTADDR": "10.0.0.1"}, HOST=host)

    assert (found.endpoint, found.hostaddr) == (ENDPOINT, "10.0.0.1")
    assert found.endpoint_setting == "ENDPOINT_NAME"


def test_host_that_is_not_pghost_reads_no_endpoint_of_the_environment():
    """The hint names no variable that is not read here."""
    text = refused(HOST="ep-o.example.com")

    assert 'HOST is "ep-o.example.com", and no endpoint is named for it' in text
    assert 'Set OPTIONS["endpoint"]' in text
    assert "Set ENDPOINT_NAME" not in text
    # The two ways of the hint.
    assert (
        target(HOST="ep-o.example.com", OPTIONS={"endpoint": OTHER}).endpoint == OTHER
    )
    assert target(HOST="").endpoint == ENDPOINT


@pytest.mark.parametrize("name", config.ENDPOINT_VARIABLES)
def test_each_name_of_the_endpoint_is_read(name):
    """Guide, Node kit, Python templates and agent templates differ."""
    found = target({name: f" '{ENDPOINT}/' "})

    assert (found.endpoint, found.endpoint_setting) == (ENDPOINT, name)


def test_endpoints_that_differ_are_an_error_that_names_both():
    """One of them is another database's."""
    text = refused({"ENDPOINT_NAME": ENDPOINT, "PGENDPOINT": OTHER})

    assert f'ENDPOINT_NAME is "{ENDPOINT}", PGENDPOINT is "{OTHER}"' in text
    assert target({"ENDPOINT_NAME": ENDPOINT, "PGENDPOINT": ENDPOINT}).endpoint


@pytest.mark.parametrize("quoted", ['"{}"', "'{}'", ' "{}" ', "\"'{}'\""])
@pytest.mark.parametrize("name", [n for n in NINE if n != "DATABRICKS_CLIENT_SECRET"])
def test_quotes_around_a_variable_are_cut(name, quoted):
    """``docker run --env-file`` keeps them."""
    assert target({**NINE, name: quoted.format(NINE[name])}) == replace(
        target(), login=target({**NINE, name: quoted.format(NINE[name])}).login
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
def test_workspace_address_copied_from_a_browser(given, url):
    """Path and query are cut, in messages too."""
    assert target({**NINE, "DATABRICKS_HOST": given}).login.url == url
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
def test_value_that_cannot_be_read_is_named_with_its_variable(name, value, shown):
    """Secrets in it are not shown."""
    text = refused({**NINE, name: value})

    assert f'{name} is "' in text
    assert shown in text
    assert "hush" not in text


def test_web_address_as_host_is_read():
    """Copied from a page; it holds a host and nothing else."""
    assert target({**NINE, "PGHOST": "https://ep-a.example.com/"}).host == (
        "ep-a.example.com"
    )


@pytest.mark.parametrize(
    ("mode", "rootcert", "expected"),
    [
        ("", "", ("require", "")),
        ("", "system", ("verify-full", "system")),
        ("verify-full", "", ("verify-full", "system")),
        ("VERIFY-FULL", "/ca.pem", ("verify-full", "/ca.pem")),
    ],
)
def test_verification_needs_no_more_than_one_setting(mode, rootcert, expected):
    """A file below HOME is never what a server is checked against."""
    found = target(
        {"ENDPOINT_NAME": ENDPOINT, "PGSSLMODE": mode, "PGSSLROOTCERT": rootcert}
    )

    assert (found.sslmode, found.sslrootcert) == expected


@pytest.mark.parametrize(
    ("mode", "rootcert"),
    [("require", "system"), ("verify-ca", "system"), ("verify-ca", "")],
)
def test_verification_that_would_accept_any_public_certificate_is_refused(
    mode, rootcert
):
    """As in libpq; the hint leads to verify-full."""
    own = {"sslmode": mode, "sslrootcert": rootcert}

    assert "verify-full" in refused({"ENDPOINT_NAME": ENDPOINT}, OPTIONS=own)


def test_quotes_around_the_client_id_of_the_settings_are_cut():
    """The user is the client that logs in, however it was pasted."""
    workspace = {"host": "https://o", "client_id": '"them"', "client_secret": "hush"}

    assert target(OPTIONS={"workspace": workspace}).user == "them"
