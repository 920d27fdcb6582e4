"""The system checks."""

import importlib.util
import socket

import pytest
from django.db import connections

from django_lakebase.checks import check_databases

ENDPOINT = "projects/p/branches/b/endpoints/e"
POOLER = "ep-calm-sea-1234abcd-pooler.database.us-east-1.cloud.databricks.com"
PROVISIONED = (
    "instance-2f6c1f3a-0d3e-4f8c-9d0f-1e2d3c4b5a69.database.cloud.databricks.com"
)
OTHER_HOST = "https://other.cloud.databricks.com"


@pytest.fixture
def settings_of_default(workspace_environment):
    """Yield the settings of the default alias, and restore them after the test."""
    own = connections["default"].settings_dict
    before = dict(own)
    own["OPTIONS"] = {}
    yield own
    own.clear()
    own.update(before)


@pytest.fixture
def configure(settings_of_default):
    """Return a function that changes the default alias and returns the findings."""

    def configured(options=None, **settings):
        settings_of_default.update(settings)
        if options:
            settings_of_default["OPTIONS"].update(options)
        return check_databases()

    return configured


def ids(findings):
    """Return the ids of *findings*."""
    return [finding.id for finding in findings]


def test_valid_configuration_has_no_findings(configure):
    """With keys of Django, libpq and this package."""
    options = {"sslmode": "verify-full", "endpoint": ENDPOINT, "application_name": "y"}

    assert configure({**options, "pool": True}) == []


def test_misspelled_option_gets_a_suggestion(configure):
    """W001: libpq would reject the option at the first connection."""
    [finding] = configure({"conect_budget": 5})

    assert finding.id == "lakebase.W001"
    assert "conect_budget" in finding.msg
    assert finding.hint.startswith('Did you mean "connect_budget"? See ')


def test_unknown_option_without_a_similar_name_is_to_be_removed(configure):
    [finding] = configure({"zzzzzzzz": 5})

    assert finding.hint == "Remove the key. See docs/reference/checks.md#lakebase-w001."


NATIVE = {"HOST": "h", "USER": "u"}
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.abc-def_123"
PAT = "dapi" + "0123456789abcdef" * 2
INVALID = [
    ("E001", {"endpoint": "primary"}, {}, 'OPTIONS["endpoint"] is "primary"'),
    ("E002", {"sslmode": "disable"}, {}, 'OPTIONS["sslmode"] is "disable"'),
    ("E003", {"workspace": 7}, {}, 'OPTIONS["workspace"] is a int'),
    ("E003", {"workspace": {"client_id": "x"}}, {}, "client_id but no host"),
    ("E004", {}, {"PASSWORD": "p", "USER": ""}, "is not set in the settings"),
    ("E005", {"endpoint": ENDPOINT}, {"HOST": "/var/run/postgresql"}, "a local socket"),
    ("E006", {}, {"PORT": "70000"}, 'PORT is "70000"'),
    ("E007", {"connect_budget": 0}, {}, 'OPTIONS["connect_budget"] is 0'),
    ("E011", {"pool": "4"}, {}, "OPTIONS[\"pool\"] is '4'"),
    ("E012", {}, {"OPTIONS": "sslmode"}, "OPTIONS is a str"),
    ("E013", {"hostaddr": "ep-a"}, {}, 'OPTIONS["hostaddr"] is "ep-a"'),
    ("E017", {}, {**NATIVE, "PASSWORD": PAT}, "PASSWORD contains a Databricks token"),
    (
        "E017",
        {"password": PAT},
        NATIVE,
        'OPTIONS["password"] contains a Databricks token',
    ),
    (
        "E017",
        {},
        {"PASSWORD": JWT, "USER": "u"},
        "PASSWORD contains a Databricks token or",
    ),
    ("E014", {}, {"CONN_MAX_AGE": "soon"}, 'CONN_MAX_AGE is "soon"'),
    ("E015", {"require_auth": "none"}, {}, 'OPTIONS["require_auth"] is "none"'),
    ("E008", {"pool": True}, {"CONN_MAX_AGE": 60}, "persistent connections"),
]


@pytest.mark.parametrize(
    ("number", "options", "settings", "text"), INVALID, ids=[r[3] for r in INVALID]
)
def test_settings_that_cannot_connect_are_errors(
    configure, number, options, settings, text
):
    """The first connection would raise the same text."""
    findings = configure(options, **settings)

    [finding] = [f for f in findings if f.id == f"lakebase.{number}"]
    assert finding.is_serious()
    assert text in finding.msg
    assert 'DATABASES["default"]: ' in finding.msg
    assert finding.hint


@pytest.mark.parametrize(
    ("options", "variables", "named"),
    [
        ({"sslmode": "require"}, {}, 'OPTIONS["sslmode"]'),
        ({}, {"PGSSLMODE": "require"}, "PGSSLMODE"),
    ],
)
def test_token_for_an_unverified_server_is_a_warning(
    configure, monkeypatch, options, variables, named
):
    """Databricks Apps sets PGSSLMODE, which is honoured."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    [finding] = configure(options)

    assert finding.id == "lakebase.W011"
    assert f"{named} is require" in finding.msg


def test_require_with_an_authority_has_no_finding(configure):
    """Libpq verifies the certificate then."""
    assert configure({"sslmode": "require", "sslrootcert": "/ca.pem"}) == []


def test_require_with_a_password_has_no_finding(configure):
    """SCRAM sends no password."""
    own = {"PASSWORD": "p", "USER": "u", "HOST": "h", "OPTIONS": {"sslmode": "require"}}

    assert "lakebase.W011" not in ids(configure({"sslmode": "require"}, **own))


def test_service_without_sslmode_is_an_error(configure, monkeypatch):
    """E002, with a hint that fits: there is no default to fall back to."""
    monkeypatch.delenv("PGHOST")

    [finding] = configure({"service": "own"})

    assert finding.id == "lakebase.E002"
    assert 'OPTIONS["sslmode"] is not set' in finding.msg
    assert "remove" not in finding.hint


def test_pool_without_psycopg_pool_is_an_error(configure, monkeypatch):
    """E009 says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    [finding] = configure({"pool": {"max_size": 2}})

    assert finding.id == "lakebase.E009"
    assert "psycopg[pool]" in finding.hint


def test_missing_endpoint_is_only_a_warning(configure, monkeypatch):
    """W002: images are built without the variables of their containers."""
    monkeypatch.delenv("ENDPOINT_NAME")
    monkeypatch.delenv("PGHOST")

    [finding] = configure()

    assert finding.id == "lakebase.W002"
    assert not finding.is_serious()


def test_host_without_an_endpoint_has_no_finding(configure, monkeypatch):
    """The engine finds the endpoint by its host."""
    monkeypatch.delenv("ENDPOINT_NAME")

    assert configure() == []


def test_host_of_a_provisioned_instance_is_an_error(configure, monkeypatch):
    """E018: it has no endpoint, and needs another API."""
    monkeypatch.delenv("ENDPOINT_NAME")
    monkeypatch.setenv("PGHOST", PROVISIONED)

    [finding] = configure()

    assert finding.id == "lakebase.E018"
    assert "PGHOST is" in finding.msg


def test_pooled_host_with_a_token_is_an_error(configure):
    """E010: the poolers of the service accept only native passwords."""
    findings = configure({"endpoint": ENDPOINT}, HOST=POOLER)

    assert "lakebase.E010" in ids(findings)
    assert POOLER in findings[0].msg


def test_pooled_host_needs_client_side_cursors(configure, monkeypatch):
    """W005 is shown for native passwords until the setting is changed."""
    monkeypatch.setenv("A_SECRET", "p")

    assert ids(configure(HOST=POOLER, USER="u", PASSWORD="p")) == ["lakebase.W005"]
    assert configure(DISABLE_SERVER_SIDE_CURSORS=True) == []


def test_password_with_an_endpoint_is_a_warning(configure, monkeypatch):
    """W003: the password wins, which may be a mistake."""
    monkeypatch.setenv("A_SECRET", "p")

    findings = configure({"endpoint": ENDPOINT}, HOST="h", USER="u", PASSWORD="p")

    assert ids(findings) == ["lakebase.W003"]


@pytest.mark.parametrize("options", [{}, {"endpoint": ENDPOINT}])
def test_token_as_password_is_a_warning(configure, monkeypatch, options):
    """W010, and not W003, which would suggest removing the endpoint."""
    monkeypatch.setenv("A_SECRET", JWT)

    [finding] = configure(options, **NATIVE, PASSWORD=f" {JWT}\n")

    assert finding.id == "lakebase.W010"
    assert not finding.is_serious()
    assert "Remove PASSWORD and set OPTIONS" in finding.hint
    assert "eyJ" not in f"{finding.msg} {finding.hint}"


@pytest.mark.parametrize("password", ["eyJ.not.a token", "dapi-of-mine", "dose-1234"])
def test_password_that_only_resembles_a_token_has_no_finding(
    configure, monkeypatch, password
):
    monkeypatch.setenv("A_SECRET", password)

    assert configure(**NATIVE, PASSWORD=password) == []


def test_different_endpoints_in_the_environment_are_an_error(configure, monkeypatch):
    """E016 names both variables."""
    monkeypatch.setenv("PGENDPOINT", ENDPOINT)

    [finding] = configure()

    assert finding.id == "lakebase.E016"
    assert "ENDPOINT_NAME is" in finding.msg
    assert "PGENDPOINT is" in finding.msg


@pytest.mark.parametrize("age", [None, 3600, 86400])
def test_conn_max_age_above_the_cap_is_a_warning(configure, age):
    """W004 says after how many seconds a connection is replaced."""
    [finding] = configure(CONN_MAX_AGE=age)

    assert finding.id == "lakebase.W004"
    assert "3240 seconds" in finding.msg


@pytest.mark.parametrize("age", [0, 600, 3240])
def test_conn_max_age_below_the_cap_has_no_finding(configure, age):
    assert configure(CONN_MAX_AGE=age) == []


@pytest.mark.parametrize("key", ["client_secret", "token"])
def test_secret_in_the_settings_file_is_a_warning_that_hides_it(configure, key):
    """W006 names the setting."""
    workspace = {"host": OTHER_HOST, "client_id": "id", key: "typed-in"}

    findings = configure({"workspace": workspace, "endpoint": ENDPOINT})

    assert ids(findings) == ["lakebase.W006"]
    assert f'OPTIONS["workspace"]["{key}"]' in findings[0].msg
    assert "typed-in" not in str(findings)


def test_secret_from_the_environment_has_no_finding(configure, monkeypatch):
    """Blanks around the value of the variable are ignored."""
    monkeypatch.setenv("SHOP_SECRET", " s3cret\n")
    workspace = {"host": OTHER_HOST, "client_id": "id", "client_secret": "s3cret"}

    assert configure({"workspace": workspace, "endpoint": ENDPOINT}) == []


@pytest.mark.parametrize(
    ("variable", "secret"),
    [
        ("postgresql://me:s3cret%2F9@host/db", "s3cret/9"),
        ("lakebase://host/db?client_secret=s3cret%2F9", "s3cret/9"),
        ('{"db": {"password": "s3cret/9"}}', "s3cret/9"),
        ("postgresql://me:short@host/db", "short"),
        ('"quoted"', "quoted"),
    ],
)
def test_secret_that_is_part_of_a_variable_has_no_finding(
    configure, monkeypatch, variable, secret
):
    """DATABASE_URL contains it percent-encoded."""
    monkeypatch.setenv("DATABASE_URL", variable)
    workspace = {"host": OTHER_HOST, "client_id": "id", "client_secret": secret}

    assert configure({"workspace": workspace, "endpoint": ENDPOINT}) == []


def test_variable_that_is_no_valid_url_does_not_break_the_checks(
    configure, monkeypatch
):
    """Any variable may hold brackets after a scheme."""
    monkeypatch.setenv("SOME_PATTERN", "http://[a-z]+")
    workspace = {"host": OTHER_HOST, "client_id": "id", "client_secret": "typed-in"}

    findings = configure({"workspace": workspace, "endpoint": ENDPOINT})

    assert ids(findings) == ["lakebase.W006"]


def test_short_secret_that_is_part_of_a_variable_is_still_a_warning(configure):
    """The letters of a short secret occur in many variables."""
    workspace = {"host": OTHER_HOST, "client_id": "id", "client_secret": "in"}

    assert ids(configure({"workspace": workspace, "endpoint": ENDPOINT})) == [
        "lakebase.W006"
    ]


def test_endpoint_variable_with_another_workspace_is_a_warning(configure, monkeypatch):
    """W007: ENDPOINT_NAME belongs to the workspace of DATABRICKS_HOST."""
    monkeypatch.setenv("DATABRICKS_HOST", "https://shop.cloud.databricks.com")

    [finding] = configure({"workspace": {"profile": "prod"}})

    assert finding.id == "lakebase.W007"
    assert "ENDPOINT_NAME" in finding.msg


def test_host_variable_with_another_workspace_is_a_warning(configure, monkeypatch):
    """W007: the engine would look for PGHOST in the wrong workspace."""
    monkeypatch.delenv("ENDPOINT_NAME")

    [finding] = configure({"workspace": {"profile": "prod"}})

    assert finding.id == "lakebase.W007"
    assert "PGHOST" in finding.msg


@pytest.mark.parametrize("host", ["other.cloud.databricks.com/", OTHER_HOST.upper()])
def test_same_workspace_in_settings_and_environment_has_no_finding(
    configure, monkeypatch, host
):
    """Also if its address is spelled differently."""
    monkeypatch.setenv("DATABRICKS_HOST", OTHER_HOST)

    assert configure({"workspace": {"host": host}}) == []


def test_checks_open_no_socket(configure, monkeypatch):
    """Django runs the checks at each start of runserver, also without a network."""
    monkeypatch.setattr(socket, "socket", pytest.fail)
    monkeypatch.setattr(socket, "getaddrinfo", pytest.fail)

    findings = configure(
        {"workspace": {"profile": "prod"}, "pool": True}, CONN_MAX_AGE=None
    )

    assert findings


def test_no_time_limits_on_the_platform_is_a_warning(configure, monkeypatch):
    """W012: the platform ends a request, but not its statement."""
    monkeypatch.setenv("DATABRICKS_APP_NAME", "notes")
    assert configure() == []
    monkeypatch.setenv("DATABRICKS_APP_PORT", "8000")

    [finding] = configure()

    assert finding.id == "lakebase.W012"
    assert 'OPTIONS["statement_timeout"]' in finding.hint
    assert configure({"options": "-c statement_timeout=1min"}) == []
    assert configure({"options": "", "statement_timeout": 60}) == []
