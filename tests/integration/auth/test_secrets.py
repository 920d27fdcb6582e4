"""Tokens, client secrets and passwords appear in no log, repr, error or output."""

import copy
import logging
import pickle
import sys
import traceback

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from django_lakebase.auth.sdk import new_client
from django_lakebase.auth.workspace import Workspace
from tests.helpers.credential_cache import (
    cache_of,
    cached_credential,
    forget_credentials,
)
from tests.helpers.queries import fetch_value


def secrets_of(local, wrapper):
    """Return all secrets of *local* and *wrapper*."""
    credential = cache_of(wrapper).get_cached()
    found = [
        local.env["DATABRICKS_CLIENT_SECRET"],
        local.facts["owner_token"],
        local.facts["native_password"],
    ]
    return found + ([credential.token] if credential else [])


def assert_none(secrets, text):
    """Check that *text* has none of *secrets*, and nothing that looks like a token."""
    for secret in secrets:
        assert secret not in text
    assert "eyJ" not in text


def settings_with_secrets(local):
    """Return settings that contain the client secret, as in some projects."""
    return {
        "OPTIONS": {
            "workspace": {
                "host": local.env["DATABRICKS_HOST"],
                "client_id": local.env["DATABRICKS_CLIENT_ID"],
                "client_secret": local.env["DATABRICKS_CLIENT_SECRET"],
            }
        }
    }


def test_logs_at_debug_contain_no_secret(new_wrapper, local, all_logs):
    """Through rotation, rejected logins and a pool."""
    plain = new_wrapper(**settings_with_secrets(local))
    fetch_value(plain, "SELECT 1")
    pooled = new_wrapper("pooled", OPTIONS={"pool": True})
    with local.fault("reject-logins", count=1):
        fetch_value(pooled, "SELECT 1")
    for fault in ("secret-revoked", "no-workspace-access", "api-down"):
        forget_credentials()
        with local.fault(fault), pytest.raises(Exception, match="DATABASES"):
            fetch_value(new_wrapper(OPTIONS={"connect_budget": 3}), "SELECT 1")
    forget_credentials()
    fetch_value(new_wrapper(), "SELECT 1")

    assert any("new credential" in line for line in all_logs)
    assert_none(secrets_of(local, new_wrapper()), "\n".join(all_logs))


@pytest.fixture
def all_records():
    """Collect the records of all loggers, with their arguments and tracebacks."""
    records = []

    class Collector(logging.Handler):
        def emit(self, record):
            records.append(f"{self.format(record)} {vars(record)}")

    root, collector = logging.getLogger(), Collector(logging.DEBUG)
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    yield records
    root.setLevel(level)
    root.removeHandler(collector)


@pytest.mark.parametrize("login", ["client secret", "token"])
@pytest.mark.parametrize("source", ["environment", "settings"])
def test_records_of_the_sdk_contain_no_part_of_a_secret(
    new_wrapper, local, monkeypatch, all_records, login, source
):
    """With the SDK's own settings for longer bodies and for headers."""
    monkeypatch.setenv("DATABRICKS_DEBUG_TRUNCATE_BYTES", "10485760")
    monkeypatch.setenv("DATABRICKS_DEBUG_HEADERS", "true")
    names = ["DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"]
    arguments = {name[11:].lower(): local.env[name] for name in names}
    if login == "token":
        arguments = {"token": local.facts["owner_token"]}
        for name in names:
            monkeypatch.delenv(name)
        monkeypatch.setenv("DATABRICKS_TOKEN", arguments["token"])
    workspace = {
        "host": local.env["DATABRICKS_HOST"],
        "debug_headers": True,
        "debug_truncate_bytes": 10485760,
        **arguments,
    }
    options = {"workspace": workspace} if source == "settings" else {}
    monkeypatch.delenv("PGUSER")
    wrapper = new_wrapper(OPTIONS=options)

    fetch_value(wrapper, "SELECT 1")
    Workspace(wrapper.get_target().login).identity()

    client = new_client(wrapper.get_target().login)
    assert client.config.debug_headers is False
    header = client.config.authenticate()["Authorization"]
    secrets = [*secrets_of(local, wrapper), header.removeprefix("Bearer ")]
    shown = "\n".join(all_records)
    assert "POST /api/2.0/postgres/credentials\n< 200 OK\n< **REDACTED**" in shown
    assert "/api/2.0/preview/scim/v2/Me" in shown
    for secret in secrets:
        parts = (secret[start : start + 12] for start in range(len(secret) - 11))
        assert [part for part in parts if part in shown] == []


def test_reprs_contain_no_secret(new_wrapper, local):
    wrapper = new_wrapper(**settings_with_secrets(local))
    fetch_value(wrapper, "SELECT 1")
    target = wrapper.get_target()
    access = cache_of(wrapper)

    shown = [
        repr(wrapper.get_connection_params()),
        repr(copy.deepcopy(wrapper.get_connection_params()["password"])),
        repr(target),
        repr(target.login),
        repr(access.get_cached()),
        repr(access),
        repr(wrapper.connection),
        wrapper.connection.info.dsn,
        repr(wrapper.lifetime),
    ]

    assert_none(secrets_of(local, wrapper), "\n".join(shown))


def test_pickled_password_contains_no_token(new_wrapper, local):
    """A spawned worker fetches a credential."""
    wrapper = new_wrapper("default")
    pickled = pickle.dumps(wrapper.get_connection_params()["password"])
    fetch_value(wrapper, "SELECT 1")

    assert_none(secrets_of(local, wrapper), pickled.decode(errors="replace"))
    revived = pickle.loads(pickled)  # noqa: S301 - our own.
    assert str(revived) == cached_credential(wrapper).token


def test_settings_contain_no_token(new_wrapper, local):
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")

    assert wrapper.settings_dict["PASSWORD"] == ""
    assert_none(secrets_of(local, wrapper), str(wrapper.settings_dict))


def error_of(wrapper):
    """Return the error of a query; the locals of this frame contain no secret."""
    try:
        fetch_value(wrapper, "SELECT 1")
    except OperationalError:
        return sys.exc_info()
    raise AssertionError


@pytest.mark.parametrize(
    "fault",
    ["no-workspace-access", "secret-revoked", "role-missing", "api-down"],
)
@pytest.mark.parametrize("options", [{}, {"pool": True}], ids=["plain", "pool"])
def test_debug_page_contains_no_secret(new_wrapper, local, fault, options):
    """It shows the local variables of each frame."""
    settings = settings_with_secrets(local)
    settings["OPTIONS"].update(options, connect_budget=3)
    healthy = new_wrapper(**settings)
    fetch_value(healthy, "SELECT 1")
    secrets = secrets_of(local, healthy)
    if fault != "role-missing":
        forget_credentials()
    wrapper = new_wrapper("failing", **settings)

    with local.fault(fault):
        error = error_of(wrapper)

    reporter = ExceptionReporter(RequestFactory().get("/"), *error)
    assert_none(secrets, "".join(traceback.format_exception(error[1])))
    assert_none(secrets, reporter.get_traceback_text())
    assert_none(secrets, reporter.get_traceback_html())


def test_debug_page_contains_no_native_password(new_wrapper, local):
    wrapper = new_wrapper(
        HOST=local.facts["host"],
        USER=local.facts["native_user"],
        PASSWORD="open sesame",
        OPTIONS={"hostaddr": local.facts["hostaddr"]},
    )

    error = error_of(wrapper)

    reporter = ExceptionReporter(RequestFactory().get("/"), *error)
    assert_none(["open" + " sesame"], reporter.get_traceback_html())


def test_lakebase_check_prints_no_secret(local, capsys, django_db_blocker):
    with django_db_blocker.unblock():
        call_command("lakebase_check", "--database", "default")
        for fault in ("secret-revoked", "role-missing", "empty-credential"):
            forget_credentials()
            with local.fault(fault), pytest.raises(SystemExit):
                call_command("lakebase_check", "--format", "json")

    shown = capsys.readouterr()
    secrets = [local.env["DATABRICKS_CLIENT_SECRET"], local.facts["owner_token"]]
    assert_none(secrets, shown.out + shown.err)


def test_deployment_commands_show_no_secret(
    local, all_records, capsys, django_db_blocker
):
    """Neither in their output nor in any log, also if the workspace fails."""
    role = ("--service-principal", "11111111-2222-4333-8444-555555555555")
    commands = (
        ("lakebase_check", "--deploy", "--format", "json"),
        ("lakebase_role", "create", *role, "--dry-run"),
        ("lakebase_role", "create", *role, "--via", "api", "--dry-run"),
        ("lakebase_role", "sql", *role),
        ("lakebase_role", "show", "--format", "json"),
    )
    errors = []
    with django_db_blocker.unblock():
        for fault in ("no-secret-access", "secret-revoked", "reject-logins"):
            forget_credentials()
            with local.fault(fault):
                for command in commands:
                    try:
                        call_command(*command, "--database", "default")
                    except (CommandError, SystemExit) as exc:
                        errors.append("".join(traceback.format_exception(exc)))

    shown = capsys.readouterr()
    assert "privileges" in shown.out
    secrets = [local.env["DATABRICKS_CLIENT_SECRET"], local.facts["owner_token"]]
    assert_none(secrets, "".join((shown.out, shown.err, *errors, *all_records)))


def test_psql_gets_the_token_only_in_its_environment(new_wrapper, local):
    """All users of a machine can read the arguments of a process."""
    wrapper = new_wrapper()
    arguments, environment = wrapper.client.settings_to_cmd_args_env(
        wrapper.settings_dict, []
    )

    assert environment["PGPASSWORD"] == cached_credential(wrapper).token
    assert_none(secrets_of(local, wrapper), " ".join(arguments))


def test_sdk_logs_no_token_with_the_usual_loggers(new_wrapper, local, all_logs):
    logging.getLogger("databricks.sdk").setLevel(logging.INFO)
    try:
        wrapper = new_wrapper()
        fetch_value(wrapper, "SELECT 1")
    finally:
        logging.getLogger("databricks.sdk").setLevel(logging.NOTSET)

    assert_none(secrets_of(local, wrapper), "\n".join(all_logs))
