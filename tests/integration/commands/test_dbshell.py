"""dbshell with the real psql and the login of Django."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import certifi
import pytest
from psycopg.conninfo import conninfo_to_dict

from django_lakebase.local.client import VARIABLE_PREFIXES
from tests.helpers.credential_cache import cache_token

pytestmark = pytest.mark.every_environment

TOP = Path(__file__).parents[3]
COMMAND = [sys.executable, "manage.py", "dbshell", "--", "-X", "-At"]
# Run in psql's shell, whose parent process is psql.
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
    """Return an environment without host and user, as on a developer's machine."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(VARIABLE_PREFIXES)}
    names = ["DATABRICKS_HOST", "ENDPOINT_NAME", "LAKEBASE_HOSTADDR"]
    names += ["PGPORT", "PGDATABASE", "PGSSLMODE", "PGSSLROOTCERT"]
    own = {name: local.env[name] for name in names}
    return {**kept, **own, "DATABRICKS_TOKEN": local.facts["owner_token"]}


def run(environment, *commands):
    """Run ``manage.py dbshell`` with *commands* for psql."""
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
def test_dbshell_fetches_missing_host_and_user(bare, local):
    """TLS is as strict as for Django."""
    found = run(bare, "SELECT current_user, current_database()", r"\conninfo")

    assert (found.returncode, found.stderr) == (0, "")
    row, connection = found.stdout.split("\n", 1)
    assert row == f"{local.facts['owner']}|{local.facts['database']}"
    assert f'host "{local.facts["host"]}" (address "127.0.0.1")' in connection
    assert "SSL connection" in connection


@needs_psql
def test_dbshell_starts_in_the_schema_of_the_project(bare):
    bare["LAKEBASE_SCHEMA"] = "My notes"

    found = run(bare, "SHOW search_path")

    assert (found.stdout, found.stderr) == ('"My notes",public\n', "")


@needs_psql
@needs_proc
def test_token_is_in_the_environment_of_psql_and_not_in_its_arguments(bare, local):
    """All users of a machine can read the arguments of a process."""
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
def test_psql_rejects_a_certificate_of_another_authority(bare):
    """It gets the TLS settings of Django."""
    bare["PGSSLROOTCERT"] = certifi.where()

    found = run(bare, "SELECT 1")

    assert found.returncode == 2  # As psql said it.
    assert "certificate verify failed" in found.stderr


def test_psql_gets_the_tls_settings_of_the_project(new_wrapper):
    """They override the environment, as for Django's connections."""
    own = {"sslmode": "verify-ca", "sslrootcert": "/etc/own.pem", "hostaddr": "::1"}
    wrapper = new_wrapper(OPTIONS=own)

    arguments, _ = wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, [])

    given = conninfo_to_dict(arguments[-1])
    assert {key: given[key] for key in own} == own


def test_psql_gets_the_server_settings_of_django(new_wrapper, monkeypatch):
    """Such as the search path; PGOPTIONS follows the same rule."""
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


def test_psql_gets_a_native_password_of_options(new_wrapper):
    wrapper = new_wrapper(HOST="h", USER="u", OPTIONS={"password": "native"})

    _, environment = wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, [])

    assert environment["PGPASSWORD"] == "native"


def test_expired_token_is_refreshed_for_psql(new_wrapper):
    wrapper = new_wrapper()
    cache_token(wrapper, "expired", left=-1)

    _, environment = wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, [])

    assert environment["PGPASSWORD"] not in ("", "expired")


def test_dbshell_without_a_token_prints_reason_and_hint_only(bare, local):
    """Without a traceback."""
    with local.fault("api-down"):
        found = run(bare, "SELECT 1")

    assert found.returncode == 1
    # Newer SDKs print something before it.
    assert 'CommandError: DATABASES["default"]: ' in found.stderr
    assert "Traceback" not in found.stderr


def test_dbshell_with_invalid_settings_prints_no_traceback(bare):
    found = run({**bare, "ENDPOINT_NAME": "primary"}, "SELECT 1")

    assert found.returncode == 1
    assert found.stderr.startswith('CommandError: DATABASES["default"]')
    assert "projects/<id>/branches/<id>/endpoints/<id>" in found.stderr


def test_missing_psql_is_named(bare, tmp_path):
    """With Django's own text."""
    found = run({**bare, "PATH": str(tmp_path)}, "SELECT 1")

    assert found.returncode == 1
    assert found.stderr.startswith("CommandError: You appear not to have the 'psql'")
