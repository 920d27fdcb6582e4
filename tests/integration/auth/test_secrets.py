"""No token, client secret or password is anywhere where a person looks."""

import copy
import logging
import pickle
import sys
import traceback

import pytest
from django.core.management import call_command
from django.db import OperationalError
from django.test import RequestFactory
from django.views.debug import ExceptionReporter

from tests.helpers.credentials import cache_of, cached_credential, forget_credentials
from tests.helpers.wrappers import fetch_value


def secrets_of(local, wrapper):
    """Return all that must not be seen."""
    credential = cache_of(wrapper).ready()
    found = [
        local.env["DATABRICKS_CLIENT_SECRET"],
        local.facts["owner_token"],
        local.facts["native_password"],
    ]
    return found + ([credential.token] if credential else [])


def assert_none(secrets, text):
    """Look for each secret, and for anything that looks like a token."""
    for secret in secrets:
        assert secret not in text
    assert "eyJ" not in text


def settings_with_secrets(local):
    """Return settings that hold the client secret, as some projects' do."""
    return {
        "OPTIONS": {
            "workspace": {
                "host": local.env["DATABRICKS_HOST"],
                "client_id": local.env["DATABRICKS_CLIENT_ID"],
                "client_secret": local.env["DATABRICKS_CLIENT_SECRET"],
            }
        }
    }


def test_logs_hold_no_secret(new_wrapper, local, all_logs):
    """A life with rotation, refusals and a pool, logged at DEBUG."""
    plain = new_wrapper(**settings_with_secrets(local))
    fetch_value(plain, "SELECT 1")
    pooled = new_wrapper("pooled", OPTIONS={"pool": True})
    with local.fault("refuse-logins", count=1):
        fetch_value(pooled, "SELECT 1")
    for fault in ("secret-revoked", "no-workspace-access", "api-down"):
        forget_credentials()
        with local.fault(fault), pytest.raises(Exception, match="DATABASES"):
            fetch_value(new_wrapper(OPTIONS={"connect_budget": 3}), "SELECT 1")
    forget_credentials()
    fetch_value(new_wrapper(), "SELECT 1")

    secrets = secrets_of(local, new_wrapper())
    # The SDK logs requests and answers itself, and blanks what it knows; the
    # credential's token is not among it, which its own setting switches off.
    ours = [line for line in all_logs if "/api/2.0/" not in line]
    assert any("new credential" in line for line in ours)
    assert_none(secrets, "\n".join(ours))


def test_reprs_hold_no_secret(new_wrapper, local):
    """Neither settings, parameters, caches nor connections show one."""
    wrapper = new_wrapper(**settings_with_secrets(local))
    fetch_value(wrapper, "SELECT 1")
    target = wrapper.get_target()
    access = cache_of(wrapper)

    shown = [
        repr(wrapper.get_connection_params()),
        repr(copy.deepcopy(wrapper.get_connection_params()["password"])),
        repr(target),
        repr(target.login),
        repr(access.ready()),
        repr(access),
        repr(wrapper.connection),
        wrapper.connection.info.dsn,
        repr(wrapper.lease),
    ]

    assert_none(secrets_of(local, wrapper), "\n".join(shown))


def test_a_pickled_password_is_no_password(new_wrapper, local):
    """What goes to a spawned worker says only where to ask."""
    wrapper = new_wrapper("default")
    pickled = pickle.dumps(wrapper.get_connection_params()["password"])
    fetch_value(wrapper, "SELECT 1")

    assert_none(secrets_of(local, wrapper), pickled.decode(errors="replace"))
    revived = pickle.loads(pickled)  # noqa: S301 - our own.
    assert str(revived) == cached_credential(wrapper).token


def test_settings_hold_no_token(new_wrapper, local):
    """What is filled into the settings is never a password."""
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")

    assert wrapper.settings_dict["PASSWORD"] == ""
    assert_none(secrets_of(local, wrapper), str(wrapper.settings_dict))


def error_of(wrapper):
    """Return how a query fails; this frame holds nothing to be found."""
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
def test_the_debug_page_holds_no_secret(new_wrapper, local, fault, options):
    """Django's page shows every local variable of every frame."""
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


def test_the_debug_page_holds_no_native_password(new_wrapper, local):
    """Also a password of the project's own is not for everybody."""
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
    """It is run where others look on, and its output goes into tickets."""
    with django_db_blocker.unblock():
        call_command("lakebase_check", "--database", "default")
        for fault in ("secret-revoked", "role-missing", "empty-credential"):
            forget_credentials()
            with local.fault(fault), pytest.raises(SystemExit):
                call_command("lakebase_check", "--format", "json")

    shown = capsys.readouterr()
    secrets = [local.env["DATABRICKS_CLIENT_SECRET"], local.facts["owner_token"]]
    assert_none(secrets, shown.out + shown.err)


def test_psql_gets_the_token_in_its_environment_alone(new_wrapper, local):
    """The arguments of a process are everybody's to read."""
    wrapper = new_wrapper()
    arguments, environment = wrapper.client.settings_to_cmd_args_env(
        wrapper.settings_dict, []
    )

    assert environment["PGPASSWORD"] == cached_credential(wrapper).token
    assert_none(secrets_of(local, wrapper), " ".join(arguments))


def test_the_sdk_logs_no_token_of_ours_by_itself(new_wrapper, local, all_logs):
    """With the loggers that a project usually has on, nothing is told."""
    logging.getLogger("databricks.sdk").setLevel(logging.INFO)
    try:
        wrapper = new_wrapper()
        fetch_value(wrapper, "SELECT 1")
    finally:
        logging.getLogger("databricks.sdk").setLevel(logging.NOTSET)

    assert_none(secrets_of(local, wrapper), "\n".join(all_logs))
