"""
Logins to the workspace that fail because of certificates, proxies or programs.

Each test follows the hint literally, and gets a connection or the next error.
"""

import importlib.util
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from django_lakebase.diagnosis.steps import Diagnosis
from django_lakebase.exceptions import LakebaseError
from django_lakebase.local.client import LocalLakebase
from tests.helpers.credential_cache import (
    cache_of,
    cached_credential,
    forget_credentials,
)
from tests.helpers.local_settings import settings_for
from tests.helpers.queries import fetch_value

# The SDK ignores smaller programs as the Python package of the same name.
CLI_SIZE = 1024 * 1024
LOGGED_OUT = (
    "Error: A new access token could not be retrieved because the refresh token is "
    "invalid."
)


@pytest.fixture(scope="module")
def secure():
    """Yield a local Lakebase whose API uses TLS."""
    with LocalLakebase.start("--api-tls") as own:
        yield own


@pytest.fixture(autouse=True)
def plain_environment(local, monkeypatch):
    """Remove variables about certificates, proxies and workspaces."""
    for name in list(os.environ):
        is_proxy = name.lower().endswith("_proxy")
        if is_proxy or name.endswith("_CA_BUNDLE") or name.startswith("DATABRICKS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def connect(secure, new_wrapper):
    """Return a function that connects to *secure* as a new process would."""

    def run(**workspace):
        forget_credentials()
        settings = settings_for(secure)
        own = settings["OPTIONS"]["workspace"]
        settings["OPTIONS"]["workspace"] = {**own, **workspace}
        return fetch_value(
            new_wrapper(HOST=secure.facts["host"], **settings), "SELECT 1"
        )

    return run


def failure_of(connect, **workspace):
    """Return the error of an attempt to connect."""
    with pytest.raises(LakebaseError) as caught:
        connect(**workspace)
    return caught.value


def test_unknown_certificate_authority_of_the_workspace(
    connect, secure, new_wrapper, monkeypatch
):
    """lakebase_check gives the same hint as the error."""
    error = failure_of(connect)
    checked = new_wrapper(**settings_for(secure))
    steps = {step.id: step for step in Diagnosis(checked).run()}
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", secure.env["REQUESTS_CA_BUNDLE"])

    assert error.failure_id == "api-ca-unknown"
    assert "Set REQUESTS_CA_BUNDLE" in error.hint
    assert steps["sdk-login"].hint == error.hint
    assert connect() == 1


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unusable_certificate_file(
    connect, secure, monkeypatch, tmp_path, variable, content
):
    """It is missing or contains no certificate; each alternative of the hint works."""
    file = tmp_path / "bundle.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv(variable, str(file))

    error = failure_of(connect)
    monkeypatch.delenv(variable)
    without = failure_of(connect)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", secure.env["REQUESTS_CA_BUNDLE"])

    assert error.failure_id == "ca-bundle-unusable"
    assert variable in str(error)
    assert without.failure_id == "api-ca-unknown"
    assert connect() == 1


def test_certificate_of_another_host(connect, secure, monkeypatch):
    """No certificate file would help, so the hint is about DATABRICKS_HOST."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", secure.env["REQUESTS_CA_BUNDLE"])
    right = secure.env["DATABRICKS_HOST"]

    error = failure_of(connect, host=right.replace("127.0.0.1", "localhost"))

    assert error.failure_id == "api-certificate"
    assert "correct DATABRICKS_HOST" in error.hint
    assert "Hostname mismatch" in str(error)
    assert connect(host=right) == 1


@pytest.mark.skipif(
    importlib.util.find_spec("socks") is not None, reason="PySocks is installed"
)
def test_socks_proxy_without_its_package(connect, secure, monkeypatch):
    """The hint names the package, and the way around the proxy."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", secure.env["REQUESTS_CA_BUNDLE"])
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")

    error = failure_of(connect)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    assert error.failure_id == "socks-missing"
    assert 'pip install "requests[socks]"' in error.hint
    assert "to NO_PROXY" in error.hint
    assert connect() == 1


# Profiles, and the programs that log in.


@pytest.fixture
def profile(local, new_wrapper, tmp_path):
    """Return a function that connects with a profile of the given lines."""
    file = tmp_path / "databrickscfg"

    def run(*lines):
        forget_credentials()
        file.write_text("\n".join(["[dev]", *lines]))
        settings = settings_for(local)
        workspace = {"profile": "dev", "config_file": str(file)}
        settings["OPTIONS"] = {**settings["OPTIONS"], "workspace": workspace}
        wrapper = new_wrapper(HOST=local.facts["host"], **settings)
        assert fetch_value(wrapper, "SELECT 1") == 1
        wrapper.close()
        return wrapper

    return run


@pytest.fixture
def programs(local, tmp_path, monkeypatch):
    """Put a directory for programs first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def install_cli(folder, local):
    """Install a Databricks CLI that prints the owner's token after ``auth login``."""
    token = {
        "access_token": local.facts["owner_token"],
        "token_type": "Bearer",
        # In the past, so that the SDK runs the program for each request.
        "expiry": "2020-01-01T00:00:00Z",
    }
    file = folder / "databricks"
    file.write_text(
        f"""#!/bin/sh
case "$*" in
*version*) echo '{{"Version": "0.298.0"}}' ;;
"auth login "*) touch "$0.session" ;;
"auth token "*) if [ -e "$0.session" ]; then echo '{json.dumps(token)}'
    else echo "{LOGGED_OUT}" >&2; exit 1; fi ;;
esac
exit 0
"""
        + "#" * CLI_SIZE
    )
    file.chmod(0o755)
    return Path(f"{file}.session")


def run_command_of(error):
    """Run the command at the end of the hint, or before its last words."""
    [command] = re.findall(r"process: (.*?)\.(?: |$)", error.hint)
    subprocess.run(shlex.split(command), check=True)


def test_missing_login_program(profile, programs, local):
    """The hint says to install the program and to log in."""
    lines = [f"host = {local.url}", "auth_type = databricks-cli"]

    error = failure_of(lambda: profile(*lines))
    install_cli(programs, local)
    logged_out = failure_of(lambda: profile(*lines))
    run_command_of(error)

    assert error.failure_id == "cli-missing"
    assert "databricks-cli login to the workspace needs the program databricks" in str(
        error
    )
    assert "databricks auth login --profile dev" in error.hint
    assert logged_out.failure_id == "cli-login"
    profile(*lines)


def test_logged_out_login_program(profile, programs, local):
    """Also in a process that has already connected."""
    lines = [f"host = {local.url}", "auth_type = databricks-cli"]
    session = install_cli(programs, local)
    session.touch()
    wrapper = profile(*lines)
    session.unlink()
    cache_of(wrapper).drop(cached_credential(wrapper))

    error = failure_of(lambda: fetch_value(wrapper, "SELECT 1"))
    run_command_of(error)

    assert error.failure_id == "cli-login"
    assert f"{programs / 'databricks'} returned no token" in str(error)
    assert LOGGED_OUT in str(error)
    assert fetch_value(wrapper, "SELECT 1") == 1


def test_login_method_of_the_environment(new_wrapper, programs, local, monkeypatch):
    """Without a profile, the command names the host."""
    monkeypatch.setenv("DATABRICKS_HOST", local.url)
    monkeypatch.setenv("DATABRICKS_AUTH_TYPE", "databricks-cli")
    install_cli(programs, local)

    error = failure_of(lambda: fetch_value(new_wrapper(USER=""), "SELECT 1"))

    assert error.failure_id == "cli-login"
    assert f"databricks auth login --host {local.url}." in error.hint


@pytest.mark.parametrize("is_installed", [False, True])
def test_login_with_the_azure_cli(profile, programs, local, is_installed):
    """The SDK raises the same error if the program is missing or logged out."""
    if is_installed:
        (programs / "az").write_text("#!/bin/sh\nexit 1\n")
        (programs / "az").chmod(0o755)

    error = failure_of(lambda: profile(f"host = {local.url}", "auth_type = azure-cli"))

    assert error.failure_id == ("cli-login" if is_installed else "cli-missing")
    assert "az login" in error.hint


def test_login_with_the_google_library(profile, local, monkeypatch, tmp_path):
    """Gcloud creates its credentials, so the hint has the command of gcloud."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)

    error = failure_of(
        lambda: profile(f"host = {local.url}", "google_service_account = x@y.z")
    )

    assert error.failure_id in ("cli-login", "cli-missing")
    assert "gcloud auth application-default login" in error.hint


@pytest.mark.parametrize(
    ("kept", "problem"),
    [
        (["client_id", "client_secret"], "names no host"),
        (["host"], "names a host but no login"),
        (["host", "auth_type"], 'auth_type "pat"'),
    ],
)
def test_incomplete_profile(profile, programs, local, kept, problem):
    """The error names the profile and the missing key; adding the key is enough."""
    whole = {
        "host": local.url,
        "client_id": local.env["DATABRICKS_CLIENT_ID"],
        "client_secret": local.env["DATABRICKS_CLIENT_SECRET"],
    }
    partial = {"auth_type": "pat", **whole}

    error = failure_of(lambda: profile(*(f"{name} = {partial[name]}" for name in kept)))

    assert error.failure_id == "profile-incomplete"
    assert 'the profile "dev"' in str(error)
    assert problem in str(error)
    profile(*(f"{name} = {value}" for name, value in whole.items()))


def test_unreadable_profiles_file(new_wrapper, local, tmp_path, monkeypatch):
    """A directory, which root cannot read either; the variable names another file."""
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path))
    monkeypatch.setenv("DATABRICKS_CONFIG_PROFILE", "dev")
    file = tmp_path / "other"
    file.write_text(
        f"[dev]\nhost = {local.url}\n"
        f"client_id = {local.env['DATABRICKS_CLIENT_ID']}\n"
        f"client_secret = {local.env['DATABRICKS_CLIENT_SECRET']}\n"
    )

    error = failure_of(lambda: fetch_value(new_wrapper(), "SELECT 1"))
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(file))

    assert error.failure_id == "profile-unreadable"
    assert str(tmp_path) in str(error)
    assert "set DATABRICKS_CONFIG_FILE" in error.hint
    assert fetch_value(new_wrapper(), "SELECT 1") == 1
