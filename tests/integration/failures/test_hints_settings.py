"""
Each hint that names a setting or a variable, followed literally.

A case causes the failure, changes the setting or variable of the hint, and gets a
connection or the next error. Hints that are SQL or name no setting are tested in
test_hints_service.py; CANNOT lists the hints that no test follows, and why.
"""

import json
import re
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from django_lakebase.config import libpq
from django_lakebase.diagnosis.step import Status
from django_lakebase.diagnosis.steps import Diagnosis
from django_lakebase.exceptions import ExplainedError, SettingsError
from django_lakebase.failures.catalog import FAILURES
from django_lakebase.failures.classify import failures_by_id
from django_lakebase.failures.render import summary_and_hint
from django_lakebase.local.client import LocalLakebase
from tests.helpers.credential_cache import cache_token, forget_credentials
from tests.helpers.local_settings import settings_for
from tests.helpers.plain_psycopg import open_session
from tests.helpers.queries import fetch_value
from tests.integration.failures.test_hints_service import FAULTS, run_as_owner

REMOVED = None
ROLE = "databricks_create_role"


@dataclass(frozen=True, kw_only=True)
class Case:
    """
    A failure, and the setting or variable of its hint.

    *settings* and *variables* cause the failure, on top of an environment that
    connects. *followed* maps a setting or variable, spelled as in the hint, to its new
    value; *next_failure* is the next error, or empty for a connection. *older* is the
    failure with older SDKs. Names in braces are facts of the local Lakebase.
    """

    id: str
    older: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    followed: Mapping[str, Any]
    next_failure: str = ""


NATIVE = {
    "HOST": "{host}",
    "USER": "{native_user}",
    "PASSWORD": "{native_password}",
}
NO_ENDPOINT = {"ENDPOINT_NAME": REMOVED, "PGHOST": REMOVED}
MACHINE = {
    "host": "{DATABRICKS_HOST}",
    "client_id": "{DATABRICKS_CLIENT_ID}",
    "client_secret": "{DATABRICKS_CLIENT_SECRET}",
}
OWNER = {
    "DATABRICKS_CLIENT_SECRET": REMOVED,
    "DATABRICKS_TOKEN": "{owner_token}",
    "DATABRICKS_AUTH_TYPE": "pat",
    "PGUSER": REMOVED,
}
PROVISIONED = "instance-2f6c1f3a.database.cloud.databricks.com"
OTHER_HOST = "ep-none.database.local-1.lakebase.test"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.abc-def_123"

CASES = [
    # Settings.
    Case(
        id="endpoint-missing",
        variables=NO_ENDPOINT,
        followed={"ENDPOINT_NAME": "{endpoint}"},
    ),
    Case(
        id="endpoint-missing",
        variables=NO_ENDPOINT,
        followed={'OPTIONS["endpoint"]': "{endpoint}"},
    ),
    Case(
        id="endpoint-missing",
        variables=NO_ENDPOINT,
        followed={"PGENDPOINT": "{endpoint}"},
    ),
    Case(
        id="endpoint-missing",
        variables=NO_ENDPOINT,
        followed={"PGHOST": "{host}"},
    ),
    Case(
        id="endpoint-missing",
        variables=NO_ENDPOINT,
        followed={"HOST": "{host}"},
    ),
    Case(
        id="host-provisioned",
        variables={"ENDPOINT_NAME": REMOVED, "PGHOST": PROVISIONED},
        followed={"PGHOST": "{host}"},
    ),
    Case(
        id="host-provisioned",
        settings={"HOST": PROVISIONED},
        followed={"HOST": "{host}"},
    ),
    Case(
        # The name of the host is not the endpoint's, so the login goes no further.
        id="host-provisioned",
        settings={"HOST": PROVISIONED},
        followed={'OPTIONS["endpoint"]': "{endpoint}"},
        next_failure="wrong-host",
    ),
    Case(
        id="endpoint-not-found-for-host",
        variables={"ENDPOINT_NAME": REMOVED, "PGHOST": OTHER_HOST},
        followed={"PGHOST": "{host}"},
    ),
    Case(
        id="endpoint-not-found-for-host",
        variables={"ENDPOINT_NAME": REMOVED, "PGHOST": OTHER_HOST},
        followed={"ENDPOINT_NAME": "{endpoint}"},
        next_failure="wrong-host",
    ),
    Case(
        id="endpoint-not-found-for-host",
        settings={"HOST": OTHER_HOST},
        followed={"HOST": "{host}"},
    ),
    Case(
        id="endpoint-not-found-for-host",
        settings={"HOST": OTHER_HOST},
        followed={'OPTIONS["endpoint"]': "{endpoint}"},
        next_failure="wrong-host",
    ),
    Case(
        id="endpoint-ambiguous",
        variables={"PGENDPOINT": "{branch}/endpoints/other"},
        followed={"PGENDPOINT": REMOVED},
    ),
    Case(
        id="endpoint-ambiguous",
        variables={"PGENDPOINT": "{branch}/endpoints/other"},
        followed={'OPTIONS["endpoint"]': "{endpoint}"},
    ),
    Case(
        id="value-invalid",
        variables={"PGHOST": "{host}:5432"},
        followed={"PGHOST": "{host}"},
    ),
    Case(
        id="value-invalid",
        settings={"CONN_MAX_AGE": "soon"},
        followed={"CONN_MAX_AGE": 600},
    ),
    Case(
        id="libpq-variable",
        settings={"OPTIONS": {"require_auth": "none"}},
        followed={'OPTIONS["require_auth"]': REMOVED},
    ),
    Case(
        id="libpq-variable",
        variables={"PGSERVICE": "own"},
        followed={"PGSERVICE": REMOVED},
    ),
    Case(
        id="endpoint-malformed",
        variables={"ENDPOINT_NAME": "primary"},
        followed={"ENDPOINT_NAME": "{endpoint}"},
    ),
    Case(
        id="endpoint-malformed",
        settings={"OPTIONS": {"endpoint": "primary"}},
        followed={'OPTIONS["endpoint"]': "{endpoint}"},
    ),
    Case(
        id="sslmode-weak",
        variables={"PGSSLMODE": "prefer"},
        followed={"PGSSLMODE": "require"},
    ),
    Case(
        id="sslmode-weak",
        settings={"OPTIONS": {"sslmode": "disable"}},
        followed={'OPTIONS["sslmode"]': REMOVED},
    ),
    Case(
        id="sslmode-missing",
        settings={"OPTIONS": {"service": "shop"}},
        variables={
            "PGSERVICEFILE": "{service_file}",
            "PGHOST": REMOVED,
            "PGSSLMODE": REMOVED,
        },
        followed={'OPTIONS["sslmode"]': "require"},
    ),
    Case(
        id="workspace-invalid",
        settings={"OPTIONS": {"workspace": {}}},
        followed={'OPTIONS["workspace"]': MACHINE},
    ),
    Case(
        id="workspace-invalid",
        settings={"OPTIONS": {"workspace": 7}},
        followed={'OPTIONS["workspace"]': {"profile": "prod"}},
        next_failure="unknown-profile",
    ),
    Case(
        id="native-incomplete",
        settings={**NATIVE, "HOST": ""},
        followed={"HOST": "{host}"},
    ),
    Case(
        id="native-incomplete",
        settings={**NATIVE, "USER": ""},
        followed={"USER": "{native_user}"},
    ),
    Case(
        id="native-incomplete",
        settings={"PASSWORD": "s3cret"},
        followed={"PASSWORD": REMOVED},
    ),
    Case(
        id="native-incomplete",
        settings={"OPTIONS": {"password": "s3cret"}},
        followed={'OPTIONS["password"]': REMOVED},
    ),
    Case(
        id="host-socket",
        variables={"PGHOST": "/var/run/postgresql"},
        followed={"PGHOST": "{host}"},
    ),
    Case(
        id="host-socket",
        variables={"PGHOST": "/var/run/postgresql"},
        followed={"PGHOST": REMOVED},
    ),
    Case(
        id="budget-invalid",
        settings={"OPTIONS": {"connect_budget": 0}},
        followed={'OPTIONS["connect_budget"]': 20},
    ),
    Case(
        id="hostaddr-invalid",
        settings={"OPTIONS": {"hostaddr": REMOVED}},
        variables={"LAKEBASE_HOSTADDR": "localhost"},
        followed={"LAKEBASE_HOSTADDR": "{hostaddr}"},
    ),
    Case(
        id="hostaddr-invalid",
        settings={"OPTIONS": {"hostaddr": "localhost"}},
        followed={'OPTIONS["hostaddr"]': REMOVED},
    ),
    Case(
        id="port-invalid",
        variables={"PGPORT": "many"},
        followed={"PGPORT": "{PGPORT}"},
    ),
    Case(
        id="port-invalid",
        settings={"PORT": "0"},
        followed={"PORT": "{PGPORT}"},
    ),
    Case(
        id="pool-invalid",
        settings={"OPTIONS": {"pool": "4"}},
        followed={'OPTIONS["pool"]': True},
    ),
    Case(
        id="pool-age",
        settings={"OPTIONS": {"pool": True}, "CONN_MAX_AGE": 60},
        followed={"CONN_MAX_AGE": 0},
    ),
    Case(
        id="pool-age",
        settings={"OPTIONS": {"pool": True}, "CONN_MAX_AGE": 60},
        followed={"CONN_MAX_AGE": REMOVED},
    ),
    Case(
        id="pool-options",
        settings={"OPTIONS": {"pool": {"max_sise": 3}}},
        followed={'OPTIONS["pool"]["max_sise"]': REMOVED},
    ),
    # The workspace.
    Case(
        id="unknown-profile",
        settings={"OPTIONS": {"workspace": {"profile": "prod"}}},
        followed={'OPTIONS["workspace"]["profile"]': "stage"},
        next_failure="unknown-profile",
    ),
    Case(
        id="ambiguous-login",
        variables={"DATABRICKS_TOKEN": "{owner_token}"},
        followed={"DATABRICKS_TOKEN": REMOVED},
    ),
    Case(
        id="ambiguous-login",
        variables={"DATABRICKS_TOKEN": "{owner_token}"},
        followed={"DATABRICKS_AUTH_TYPE": "oauth-m2m"},
    ),
    Case(
        id="ambiguous-login",
        variables={"DATABRICKS_TOKEN": "{owner_token}", "PGUSER": REMOVED},
        followed={"DATABRICKS_AUTH_TYPE": "pat"},
        next_failure="user-not-identity",
    ),
    Case(
        id="ambiguous-login",
        settings={"OPTIONS": {"workspace": {**MACHINE, "token": "{owner_token}"}}},
        followed={'OPTIONS["workspace"]["token"]': REMOVED},
    ),
    Case(
        id="ambiguous-login",
        settings={"OPTIONS": {"workspace": {**MACHINE, "token": "{owner_token}"}}},
        followed={'OPTIONS["workspace"]["auth_type"]': "oauth-m2m"},
    ),
    Case(
        id="bad-client-secret",
        variables={"DATABRICKS_CLIENT_SECRET": "dose0"},
        followed={"DATABRICKS_CLIENT_SECRET": "{DATABRICKS_CLIENT_SECRET}"},
    ),
    Case(
        id="bad-client-secret",
        variables={"DATABRICKS_CLIENT_ID": "somebody"},
        followed={"DATABRICKS_CLIENT_ID": "{DATABRICKS_CLIENT_ID}"},
    ),
    Case(
        id="endpoint-not-found",
        variables={"ENDPOINT_NAME": "{branch}/endpoints/other"},
        followed={"ENDPOINT_NAME": "{endpoint}"},
    ),
    Case(
        id="endpoint-not-found",
        settings={"OPTIONS": {"endpoint": "{branch}/endpoints/other"}},
        followed={'OPTIONS["endpoint"]': "{endpoint}"},
    ),
    Case(
        id="api-unreachable",
        variables={"DATABRICKS_HOST": "http://127.0.0.1:1"},
        followed={"DATABRICKS_HOST": "{DATABRICKS_HOST}"},
    ),
    Case(
        id="api-unreachable",
        older="response-unusable",
        variables={"DATABRICKS_HOST": "{page}"},
        followed={"DATABRICKS_HOST": "{DATABRICKS_HOST}"},
    ),
    Case(
        id="response-unusable",
        variables={**OWNER, "PGUSER": "{owner}", "DATABRICKS_HOST": "{page}"},
        followed={"DATABRICKS_HOST": "{DATABRICKS_HOST}"},
    ),
    Case(
        id="api-missing",
        variables={"DATABRICKS_HOST": "{elsewhere}"},
        followed={"DATABRICKS_HOST": "{DATABRICKS_HOST}"},
    ),
    # The server.
    Case(
        id="user-not-identity",
        variables={"PGUSER": "left-over"},
        followed={"PGUSER": "{service_principal}"},
    ),
    Case(
        id="user-not-identity",
        settings={"USER": "{owner}"},
        followed={"USER": "{service_principal}"},
    ),
    Case(
        id="user-not-identity",
        variables=OWNER,
        followed={"PGUSER": "{owner}"},
    ),
    Case(
        id="user-not-identity",
        settings={
            "OPTIONS": {
                "workspace": {
                    "host": "{DATABRICKS_HOST}",
                    "client_id": "{service_principal}",
                    "token": "{owner_token}",
                    "auth_type": "pat",
                }
            }
        },
        followed={"USER": "{owner}"},
    ),
    Case(
        id="password-is-token",
        settings={**NATIVE, "PASSWORD": "{expired}", "USER": "{service_principal}"},
        followed={"PASSWORD": REMOVED, 'OPTIONS["endpoint"]': "{endpoint}"},
    ),
    Case(
        id="password-is-token",
        settings={**NATIVE, "PASSWORD": JWT},
        followed={"PASSWORD": REMOVED, 'OPTIONS["endpoint"]': "{endpoint}"},
        next_failure="user-not-identity",
    ),
    Case(
        id="password-is-token",
        settings={"PASSWORD": "{owner_token}"},
        followed={"PASSWORD": REMOVED, 'OPTIONS["endpoint"]': "{endpoint}"},
    ),
    Case(
        id="password-is-token",
        settings={"OPTIONS": {"password": "{expired}"}},
        followed={
            'OPTIONS["password"]': REMOVED,
            'OPTIONS["endpoint"]': "{endpoint}",
        },
    ),
    Case(
        id="password-rejected",
        settings={**NATIVE, "PASSWORD": "wrong"},
        followed={"PASSWORD": "{native_password}"},
    ),
    Case(
        id="password-rejected",
        settings={**NATIVE, "USER": "wrong"},
        followed={"USER": "{native_user}"},
    ),
    Case(
        id="password-rejected",
        settings={**NATIVE, "PASSWORD": "wrong"},
        followed={"PASSWORD": REMOVED},
        next_failure="user-not-identity",
    ),
    Case(
        id="pooled-host",
        variables={"PGHOST": "{pooled_host}"},
        followed={"PGHOST": "{host}"},
    ),
    Case(
        id="pooled-host",
        settings={"HOST": "{pooled_host}", "OPTIONS": {"endpoint": "{endpoint}"}},
        followed={"HOST": REMOVED},
    ),
    Case(
        id="wrong-host",
        variables={"PGHOST": "ep-none.database.local-1.lakebase.test"},
        followed={"PGHOST": "{host}"},
    ),
    Case(
        id="wrong-host",
        variables={"PGHOST": "ep-none.database.local-1.lakebase.test"},
        followed={"PGHOST": REMOVED},
    ),
    Case(
        # The certificate is not for this name.
        id="wrong-host",
        variables={"PGHOST": "alias.example.com"},
        followed={"PGHOST": "{host}"},
    ),
    Case(
        id="wrong-host",
        settings={**NATIVE, "HOST": "ep-none.database.local-1.lakebase.test"},
        followed={"HOST": "{host}"},
    ),
    Case(
        id="database-missing",
        variables={"PGDATABASE": "nowhere"},
        followed={"PGDATABASE": "databricks_postgres"},
    ),
    Case(
        id="database-missing",
        settings={"NAME": "nowhere"},
        followed={"NAME": "databricks_postgres"},
    ),
    Case(
        id="libpq-variable",
        variables={"PGCHANNELBINDING": "require"},
        followed={"PGCHANNELBINDING": "prefer"},
    ),
    Case(
        id="libpq-variable",
        settings={"OPTIONS": {"channel_binding": "require"}},
        followed={'OPTIONS["channel_binding"]': REMOVED},
    ),
    Case(
        id="certificate-not-verified",
        settings={"OPTIONS": {"sslrootcert": "system"}},
        variables={"PGSSLMODE": REMOVED},
        followed={'OPTIONS["sslrootcert"]': "{ca_file}"},
    ),
    Case(
        id="certificate-not-verified",
        variables={"PGSSLROOTCERT": REMOVED, "PGSSLMODE": REMOVED},
        followed={'OPTIONS["sslmode"]': "require"},
    ),
    Case(
        id="tls-failed",
        variables={"PGSSLROOTCERT": "/none.pem"},
        followed={"PGSSLROOTCERT": "{ca_file}"},
    ),
    Case(
        id="tls-failed",
        settings={"OPTIONS": {"sslrootcert": "/none.pem"}},
        followed={'OPTIONS["sslrootcert"]': "{ca_file}"},
    ),
    Case(
        id="option-unknown",
        settings={"OPTIONS": {"no_such_key": 1}},
        followed={'OPTIONS["no_such_key"]': REMOVED},
    ),
    Case(
        id="assume-role-missing",
        settings={"OPTIONS": {"assume_role": "nobody-has-it"}},
        followed={'OPTIONS["assume_role"]': "{service_principal}"},
    ),
]

ELSEWHERE = {
    "endpoint-read-only": "test_hint_for_a_read_only_endpoint",
    "options-invalid": "test_hint_for_options_that_are_not_a_dict",
    "token-rejected": "test_hints_work_in_each_dialect_of_the_service",
    "no-login": "tests of the login to the workspace",
    "login-token-rejected": "tests of the login to the workspace",
    "api-ca-unknown": "test_authority_that_requests_does_not_know",
    "api-certificate": "test_certificate_of_another_host",
    "ca-bundle-unusable": "test_file_of_authorities_that_cannot_be_used",
    "cli-login": "test_login_program_that_is_logged_out",
    "cli-missing": "test_login_program_that_is_missing",
    "profile-incomplete": "test_profile_that_lacks_something",
    "profile-unreadable": "test_profiles_file_that_cannot_be_read",
    "socks-missing": "test_socks_proxy_without_its_package",
    "pool-exhausted": "test_hint_of_pool_exhausted_works",
    "waking": "test_hint_of_waking_works",
    "createdb-missing": "test_test_databases.py",
    "template-denied": "test_test_databases.py",
    "endpoint-search-timeout": "test_search_that_exceeds_the_budget_goes_on",
    "schema-denied": "test_lakebase_migrate.py",
    "schema-missing": "test_schema.py",
    "assume-role-denied": "test_roles.py",
    "owner-required": "test_roles.py",
    "privilege-denied": "test_roles.py",
}

# Hints that no test can follow here, and why.
CANNOT = {
    "channel-binding": "libpq-variable rejects the same setting before a login",
    "setup-failed": "each known cause has another row",
    "pool-package-missing": "it installs a package",
    "session-lost": "test_lost_sessions.py closes the connection and goes on",
    "sdk-missing": "it installs a package",
    "scopes-missing": "the local Lakebase gives every token all scopes",
    "permission-missing": "the local Lakebase has no permissions on projects",
    "clock-skew": "it sets the machine's clock",
    "token-expired": "it compares the machine's clock",
    "token-early": "it asks Databricks support",
    "host-unknown": "the local Lakebase knows the host of each endpoint at once",
    "identity-unknown": "the local Lakebase knows each login's identity",
    "external-authorization": "it waits, or asks an administrator",
    "endpoint-unavailable": "it raises a quota of the workspace",
    "unexplained": "it runs lakebase_check",
    "workspace-unexplained": "it runs lakebase_check",
}

NAMES_A_SETTING = re.compile(
    r"OPTIONS|\b(HOST|PORT|NAME|USER|PASSWORD|CONN_MAX_AGE)\b|_setting}"
    r"|\b(PG|DATABRICKS_|LAKEBASE_|ENDPOINT_)[A-Z_]+"
)


def test_each_failure_has_a_tested_hint_or_a_reason():
    """A hint that names a setting needs its own case."""
    with_fault = {failure_id for _, _, failure_id, _, _ in FAULTS}
    cases = {case.id for case in CASES} | set(ELSEWHERE)
    carried_out = cases | {
        row.id
        for row in FAILURES
        if row.id in with_fault
        and (ROLE in row.hint or not NAMES_A_SETTING.search(row.hint))
    }

    assert {row.id for row in FAILURES} == carried_out | set(CANNOT)
    assert not carried_out & set(CANNOT)


class _Page(BaseHTTPRequestHandler):
    """A server that answers each request with a page of HTML."""

    status, kind, body = 200, "text/html", b"<html>Log in</html>"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        self.send_header("Content-Type", self.kind)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    do_POST = do_GET  # noqa: N815 - the library's name.

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class _Elsewhere(_Page):
    """A Databricks host without an API for Lakebase."""

    status, kind = 404, "application/json"
    body = json.dumps(
        {
            "error_code": "ENDPOINT_NOT_FOUND",
            "message": "No API found for 'POST /postgres/credentials'",
        }
    ).encode()


@pytest.fixture(scope="module")
def others() -> Iterator[dict[str, str]]:
    """Yield the addresses of two servers that are not workspaces with Lakebase."""
    servers = {
        name: HTTPServer(("127.0.0.1", 0), handler)
        for name, handler in {"page": _Page, "elsewhere": _Elsewhere}.items()
    }
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        name: f"http://127.0.0.1:{server.server_port}"
        for name, server in servers.items()
    }
    for server in servers.values():
        server.shutdown()
        server.server_close()


@pytest.fixture
def facts(local, others, tmp_path):
    """Return the values of the words in braces."""
    label, _, domain = local.facts["host"].partition(".")
    service_file = tmp_path / "pg_service.conf"
    service_file.write_text(
        "[shop]\nhost={host}\nport={port}\ndbname={database}\n"
        "user={native_user}\npassword={native_password}\n".format_map(local.facts)
    )
    return {
        **local.facts,
        **local.env,
        **others,
        "service_file": str(service_file),
        "expired": local.issue_token(local.facts["service_principal"], ttl=-60),
        "pooled_host": f"{label}-pooler.{domain}",
    }


def filled(value, facts):
    """Return *value* with the words in braces replaced."""
    if isinstance(value, Mapping):
        return {key: filled(own, facts) for key, own in value.items()}
    return value.format_map(facts) if isinstance(value, str) else value


def failure_of(wrapper):
    """Return the error of a query."""
    with pytest.raises((OperationalError, ImproperlyConfigured)) as caught:
        fetch_value(wrapper, "SELECT 1")
    assert isinstance(caught.value, ExplainedError)
    return caught.value


def follow(name, value, settings, monkeypatch):
    """Set the name that the hint mentions to *value*, or remove it."""
    path = re.findall(r"\w+", name)
    if path[0] not in ("OPTIONS", *NATIVE, "PORT", "NAME", "CONN_MAX_AGE"):
        if value is REMOVED:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
        return
    for key in path[:-1]:
        settings = settings[key]
    if value is REMOVED:
        del settings[path[-1]]
    else:
        settings[path[-1]] = value


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.id}: {', '.join(case.followed)}" for case in CASES]
)
def test_following_the_hint_leads_to_a_connection_or_the_next_error(
    new_wrapper, local, monkeypatch, tmp_path, facts, case
):
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    for name, value in filled(case.variables, facts).items():
        if value is REMOVED:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    settings = filled(case.settings, facts)
    options = settings.get("OPTIONS", {})
    if isinstance(options, dict):
        # Instead of a name server that knows the hosts of the service.
        options = {"connect_budget": 2, "hostaddr": facts["hostaddr"], **options}
    settings["OPTIONS"] = options

    wrapper = new_wrapper("hint", **settings)
    error = failure_of(wrapper)
    wrapper.close()
    for name, value in filled(case.followed, facts).items():
        key = re.findall(r"\w+", name)[-1]
        assert re.search(rf"\b{key}\b", str(error)), f"{name} is not in: {error}"
        follow(name, value, settings, monkeypatch)
    forget_credentials()
    again = new_wrapper("hint", **settings)

    assert error.failure_id in (case.id, case.older or case.id)
    if case.next_failure:
        assert failure_of(again).failure_id == case.next_failure
    else:
        assert fetch_value(again, "SELECT 1") == 1


@pytest.mark.skipif(not libpq.has_direct_tls(), reason="requires libpq 17")
def test_hint_for_direct_tls_that_the_server_rejects(new_wrapper, local):
    with local.fault("direct-tls", mode="reject"):
        error = failure_of(new_wrapper("hint", OPTIONS={"sslnegotiation": "direct"}))

        assert error.failure_id == "tls-failed"
        assert 'OPTIONS["sslnegotiation"] is direct, remove it' in error.hint
        assert fetch_value(new_wrapper("hint", OPTIONS={}), "SELECT 1") == 1


def test_hint_for_options_that_are_not_a_dict(new_wrapper, local):
    wrapper = new_wrapper("hint", OPTIONS="sslmode=require")

    with pytest.raises(SettingsError, match="OPTIONS is a str") as caught:
        wrapper.get_target()

    assert "such as {}" in caught.value.hint
    assert fetch_value(new_wrapper("hint", OPTIONS={}), "SELECT 1") == 1


def test_hint_for_a_read_only_endpoint(new_wrapper, local, monkeypatch):
    """The read-write endpoint connects, and so does HOST with the read-only host."""
    parent = f"api/2.0/postgres/{local.facts['branch']}/endpoints"
    body = {"spec": {"endpoint_type": "ENDPOINT_TYPE_READ_ONLY"}}
    made = api(local, "POST", f"{parent}?endpoint_id=hint", body)
    name = f"{local.facts['branch']}/endpoints/hint"
    try:
        monkeypatch.delenv("PGHOST")
        monkeypatch.setenv("ENDPOINT_NAME", name)
        error = failure_of(new_wrapper("hint"))
        host = api(local, "GET", f"api/2.0/postgres/{name}")["status"]["hosts"]["host"]
        monkeypatch.setenv("PGHOST", host)
        is_read_only = fetch_value(new_wrapper("hint"), "SELECT pg_is_in_recovery()")
        monkeypatch.delenv("PGHOST")
        monkeypatch.setenv("ENDPOINT_NAME", local.facts["endpoint"])
        is_writable = not fetch_value(new_wrapper("hint"), "SELECT pg_is_in_recovery()")
    finally:
        api(local, "DELETE", f"api/2.0/postgres/{name}")

    assert made["name"].startswith(local.facts["branch"])
    assert error.failure_id == "endpoint-read-only"
    assert "ENDPOINT_NAME" in error.hint
    assert "PGHOST" in error.hint
    assert is_read_only
    assert is_writable


def api(local, method, path, body=None):
    """Return the answer of the API to the owner of the project."""
    request = urllib.request.Request(
        f"{local.url}/{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {local.facts['owner_token']}"},
        method=method,
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_hint_of_pool_exhausted_works(new_wrapper, local):
    """It is to raise OPTIONS["pool"]["max_size"]."""

    def pooled(max_size):
        pool = {"min_size": 0, "max_size": max_size, "timeout": 0.2}
        return [new_wrapper("hint", OPTIONS={"pool": pool}) for _ in range(2)]

    first, second = pooled(1)
    fetch_value(first, "SELECT 1")
    error = failure_of(second)
    first.close()
    both = pooled(2)

    assert error.failure_id == "pool-exhausted"
    assert 'OPTIONS["pool"]["max_size"]' in error.hint
    assert [fetch_value(wrapper, "SELECT 1") for wrapper in both] == [1, 1]


def test_hint_of_waking_works(new_wrapper, local):
    """It is to raise OPTIONS["connect_budget"]."""
    fetch_value(new_wrapper("hint"), "SELECT 1")  # The budget is for the login alone.
    with local.fault("server-starting", seconds=0):
        error = failure_of(new_wrapper("hint", OPTIONS={"connect_budget": 0.3}))
    local.set_fault("server-starting", seconds=0.5)

    assert error.failure_id == "waking"
    assert 'raise OPTIONS["connect_budget"]' in error.hint
    assert (
        fetch_value(new_wrapper("hint", OPTIONS={"connect_budget": 20}), "SELECT 1")
        == 1
    )


# Users that are not the identity of the login.


@pytest.mark.parametrize("message", ["role", "label", "password", "decode", "jwt"])
def test_rejection_of_a_user_that_is_not_the_identity_names_both(
    new_wrapper, local, monkeypatch, message
):
    """For each message of the service; the hint creates or renames no role."""
    identity = local.facts["service_principal"]
    monkeypatch.setenv("PGUSER", identity.upper())

    with local.fault("reject-logins", message=message):
        error = failure_of(new_wrapper("hint"))

    assert error.failure_id == "user-not-identity"
    assert f'"{identity.upper()}" (from PGUSER) is not the identity' in str(error)
    assert error.hint == f'Set PGUSER to "{identity}".'
    assert not re.search("CREATE|RENAME|create_role", str(error))


@pytest.mark.parametrize("message", ["role", "label", "password"])
def test_rejection_of_the_identity_is_about_its_role(new_wrapper, local, message):
    with local.fault("reject-logins", message=message):
        error = failure_of(new_wrapper("hint"))

    assert error.failure_id in ("role-missing", "wrong-user", "token-rejected")
    assert ROLE in error.hint


def test_rejected_user_is_explained_without_the_identity_if_it_is_unknown(
    new_wrapper, local, monkeypatch
):
    monkeypatch.setenv("PGUSER", "left-over")
    wrapper = new_wrapper("hint")
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]))

    with local.fault("api-down"):
        error = failure_of(wrapper)

    assert error.failure_id == "role-missing"
    assert '"left-over"' in str(error)


def test_identity_is_fetched_within_the_budget(new_wrapper, local, monkeypatch):
    monkeypatch.setenv("PGUSER", "left-over")
    wrapper = new_wrapper("hint", OPTIONS={"connect_budget": 1})
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]))

    with local.fault("api-hang"):
        error = failure_of(wrapper)

    assert error.failure_id == "role-missing"


@pytest.mark.parametrize("user", ["left-over", "{owner}"])
def test_identity_step_of_the_check_has_the_text_of_the_error(
    new_wrapper, local, monkeypatch, user
):
    monkeypatch.setenv("PGUSER", user.format_map(local.facts))

    error = failure_of(new_wrapper("hint"))
    steps = {step.id: step for step in Diagnosis(new_wrapper("hint")).run()}

    assert steps["identity"].status is Status.WARN
    assert steps["identity"].hint == steps["login"].hint == error.hint
    assert steps["login"].detail.startswith(steps["identity"].detail)


# Roles of groups, native ones, names with quotes, other dialects.


@pytest.fixture(scope="module")
def broken():
    """Yield a local Lakebase whose roles the tests break."""
    with LocalLakebase.start() as own:
        yield own


@pytest.mark.parametrize("message", ["", "label", "password"])
def test_hint_creates_the_role_of_a_group(broken, local, new_wrapper, message):
    """The user is not the identity, but the token of a member is valid for it."""
    group = broken.facts["group"]
    settings = {"HOST": broken.facts["host"], **settings_for(broken), "USER": group}
    if message:
        broken.set_fault("reject-logins", message=message)

    error = failure_of(new_wrapper("hint", **settings))
    broken.clear_faults()
    [sql] = re.findall(r"CREATE EXTENSION .*?\);", error.hint)
    run_as_owner(broken, sql)
    forget_credentials()
    user = fetch_value(new_wrapper("hint", **settings), "SELECT current_user")
    run_as_owner(broken, f'DROP ROLE "{group}"')

    assert error.failure_id in ("role-missing", "wrong-user", "token-rejected")
    assert f"databricks_create_role('{group}', 'GROUP')" in sql
    assert user == group


NAMED = """we"ird o'role"""


@pytest.fixture
def native(broken, local, new_wrapper):
    """Return a function that connects to the broken Lakebase with a password."""

    def make(**settings):
        base = settings_for(broken)
        options = {k: base["OPTIONS"][k] for k in ("hostaddr", "sslrootcert")}
        own = {"HOST": broken.facts["host"], "PORT": base["PORT"], "OPTIONS": options}
        return new_wrapper("hint", **own, USER=NAMED, PASSWORD="s3cret", **settings)

    yield make
    broken.clear_faults()


def test_hints_create_a_native_role_and_its_grants(broken, native):
    """With quotes in the names of the role and of the database."""
    quoted = NAMED.replace('"', '""')
    run_as_owner(broken, f'CREATE DATABASE "{quoted}"')
    run_as_owner(broken, f'REVOKE CONNECT ON DATABASE "{quoted}" FROM PUBLIC')

    missing = failure_of(native())
    [create] = re.findall("CREATE ROLE .*?;", missing.hint)
    run_as_owner(broken, create.replace("'...'", "'s3cret'"))
    denied = failure_of(native(NAME=NAMED))
    [grant] = re.findall("GRANT CONNECT .*?;", denied.hint)
    run_as_owner(broken, grant)
    user = fetch_value(native(NAME=NAMED), "SELECT current_user")
    run_as_owner(broken, f'ALTER ROLE "{quoted}" NOLOGIN')
    [alter] = re.findall("ALTER ROLE .* LOGIN", denied.hint)
    run_as_owner(broken, alter)

    assert missing.failure_id == "password-rejected"
    assert denied.failure_id == "permission-denied"
    assert user == fetch_value(native(), "SELECT current_user") == NAMED


def test_hint_creates_the_role_of_an_identity_with_quotes(broken):
    user = """pat"o'hara@lakebase.test"""
    facts = {"user": user, "database": "databricks_postgres"}

    _, hint = summary_and_hint(failures_by_id()["wrong-user"], facts)
    [sql] = re.findall("run: (ALTER ROLE .*;)", hint)
    run_as_owner(broken, 'CREATE ROLE "pat""o\'hara@lakebase.test" LOGIN')
    run_as_owner(broken, sql.replace("Then, in the database:", ""))
    with open_session(broken, user=user) as session:
        [found] = session.execute("SELECT current_user").fetchone()

    assert found == user


@pytest.mark.parametrize("dialect", ["proxy", "postgres"])
def test_hints_work_in_each_dialect_of_the_service(new_wrapper, local, dialect):
    """For a wrong user, a token as password, and a missing role."""
    with LocalLakebase.start("--dialect", dialect) as own:
        facts, base = own.facts, {"HOST": own.facts["host"], **settings_for(own)}
        expired = own.issue_token(facts["service_principal"], ttl=-60)
        options = {k: base["OPTIONS"][k] for k in ("hostaddr", "sslrootcert")}

        def failed(**settings):
            return failure_of(new_wrapper("dialect", **{**base, **settings}))

        wrong = [failed(USER=user) for user in ("left-over", facts["owner"])]
        pasted = failed(
            USER=facts["service_principal"], PASSWORD=expired, OPTIONS=options
        )
        own.set_fault("role-missing")
        missing = failed()
        [sql] = re.findall(r"run: (CREATE EXTENSION .*?\);)", missing.hint)
        run_as_owner(own, sql)
        row = fetch_value(new_wrapper("dialect", **base), "SELECT 1")

    assert {error.failure_id for error in wrong} == {"user-not-identity"}
    assert pasted.failure_id == "password-is-token"
    rejected = {"proxy": "token-rejected", "postgres": "role-missing"}
    assert missing.failure_id == rejected[dialect]
    assert row == 1


def test_lakebase_check_warns_about_a_token_as_password(new_wrapper, local):
    """While the token is valid; no text shows it."""
    facts = local.facts
    token = local.issue_token(facts["service_principal"])
    wrapper = new_wrapper(
        "hint",
        HOST=facts["host"],
        USER=facts["service_principal"],
        PASSWORD=token,
        OPTIONS={"hostaddr": facts["hostaddr"]},
    )

    steps = {step.id: step for step in Diagnosis(wrapper).run()}

    assert (steps["settings"].status, steps["login"].status) == ("warn", "ok")
    assert "Remove PASSWORD and set OPTIONS" in steps["settings"].hint
    assert token[:20] not in str(steps)
