"""dbshell, as it is typed: the real psql with the login that Django has."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import certifi
import pytest
from psycopg.conninfo import conninfo_to_dict

from django_lakebase.local.client import VARIABLE_PREFIXES
from tests.support import put

pytestmark = pytest.mark.every_environment

TOP = Path(__file__).parents[2]
COMMAND = [sys.executable, "manage.py", "dbshell", "--", "-X", "-At"]
# Run by psql's own shell, whose parent is psql.
ARGUMENTS = r"\! tr '\0' '\n' < /proc/$PPID/cmdline"
ENVIRONMENT = r"\! tr '\0' '\n' < /proc/$PPID/environ"

needs_psql = pytest.mark.skipif(
    shutil.which("psql") is None, reason="psql is not installed"
)
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="this system has no /proc"
)


@pytest.fixture
def bare(local):
    """Give an environment that tells neither host nor user: that of a person."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(VARIABLE_PREFIXES)}
    told = ("DATABRICKS_HOST", "ENDPOINT_NAME", "LAKEBASE_HOSTADDR")
    told += ("PGPORT", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT")
    own = {name: local.env[name] for name in told}
    return {**kept, **own, "DATABRICKS_TOKEN": local.facts["owner_token"]}


def run(environment, *commands):
    """Type ``manage.py dbshell`` with *commands* for psql; return how it ended."""
    options = [part for command in commands for part in ("-c", command)]
    return subprocess.run(
        [*COMMAND, *options],
        cwd=TOP,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@needs_psql
def test_psql_is_logged_in_without_host_and_user(bare, local):
    """The workspace is asked for both, and TLS is as strict as for Django."""
    found = run(bare, "SELECT current_user, current_database()", r"\conninfo")

    assert (found.returncode, found.stderr) == (0, "")
    row, connection = found.stdout.split("\n", 1)
    assert row == f"{local.facts['owner']}|{local.facts['database']}"
    assert f'host "{local.facts["host"]}" (address "127.0.0.1")' in connection
    assert "SSL connection" in connection


@needs_psql
@needs_proc
def test_the_token_is_in_psql_s_environment_and_not_in_its_arguments(bare, local):
    """Everybody on the machine can read a process's arguments."""
    found = run(bare, ARGUMENTS, r"\echo --", ENVIRONMENT)

    arguments, _, environment = found.stdout.partition("\n--\n")
    told = dict(line.split("=", 1) for line in environment.splitlines() if "=" in line)
    assert local.facts["host"] in arguments.splitlines()
    assert "sslmode=verify-full" in arguments
    assert "hostaddr=127.0.0.1" in arguments
    assert len(told["PGPASSWORD"]) > 100
    for secret in (told["PGPASSWORD"], local.facts["owner_token"]):
        assert secret not in arguments


@needs_psql
def test_psql_refuses_a_server_that_the_root_certificate_does_not_vouch_for(bare):
    """The TLS settings reach psql, or a token would go to whoever answers."""
    bare["PGSSLROOTCERT"] = certifi.where()

    found = run(bare, "SELECT 1")

    assert found.returncode == 2  # As psql said it.
    assert "certificate verify failed" in found.stderr


def test_psql_gets_what_the_project_s_own_settings_say_of_tls(new_wrapper):
    """They win over the environment's, as they do for Django's connections."""
    own = {"sslmode": "verify-ca", "sslrootcert": "/etc/own.pem", "hostaddr": "::1"}
    wrapper = new_wrapper(OPTIONS=own)

    arguments, _ = wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, [])

    given = conninfo_to_dict(arguments[-1])
    assert {key: given[key] for key in own} == own


def test_psql_gets_the_server_settings_that_django_has(new_wrapper, monkeypatch):
    """Such as the search path; those of PGOPTIONS by the same rule."""
    monkeypatch.setenv("PGOPTIONS", "-c search_path=environment")
    for own, expected in (
        ({}, "environment"),
        ({"options": "-c search_path=own"}, "own"),
    ):
        wrapper = new_wrapper(OPTIONS=own)

        arguments, _ = wrapper.client.settings_to_cmd_args_env(
            wrapper.settings_dict, []
        )

        given = conninfo_to_dict(arguments[-1])
        assert given["options"] == f"-c search_path={expected}"


def test_a_native_password_among_the_options_reaches_psql(new_wrapper):
    """It is a password wherever the settings hold it."""
    wrapper = new_wrapper(HOST="h", USER="u", OPTIONS={"password": "native"})

    _, environment = wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, [])

    assert environment["PGPASSWORD"] == "native"


def test_an_expired_token_is_not_handed_to_psql(new_wrapper):
    """A process that lives long, and opens a shell late, asks for another one."""
    wrapper = new_wrapper()
    put(wrapper, "expired", left=-1)

    _, environment = wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, [])

    assert environment["PGPASSWORD"] not in ("", "expired")


def test_a_token_that_cannot_be_had_is_told_without_a_traceback(bare, local):
    """The reason and the mend, as any command tells what went wrong."""
    with local.fault("api-down"):
        found = run(bare, "SELECT 1")

    assert found.returncode == 1
    # Newer SDKs say something of their own before it.
    assert 'CommandError: DATABASES["default"]: ' in found.stderr
    assert "Traceback" not in found.stderr


def test_settings_that_cannot_connect_are_told_without_a_traceback(bare):
    """The same for what is wrong before anything is asked."""
    found = run({**bare, "ENDPOINT_NAME": "primary"}, "SELECT 1")

    assert found.returncode == 1
    assert found.stderr.startswith('CommandError: DATABASES["default"]')
    assert "projects/<id>/branches/<id>/endpoints/<id>" in found.stderr


def test_a_missing_psql_is_named(bare, tmp_path):
    """Django's own words are good enough."""
    found = run({**bare, "PATH": str(tmp_path)}, "SELECT 1")

    assert found.returncode == 1
    assert found.stderr.startswith("CommandError: You appear not to have the 'psql'")
