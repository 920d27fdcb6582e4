"""Requests to the workspace through the Databricks SDK."""

import os
import subprocess
import sys

import pytest

from django_lakebase.auth.sdk import new_client
from django_lakebase.auth.workspace import Workspace
from django_lakebase.config.target import Login
from django_lakebase.local.state.model import GROUP
from tests.helpers.local_settings import settings_for


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("source", ["environment", "settings"])
def test_workspace_url_copied_from_a_browser_is_accepted(
    local, monkeypatch, source, quote
):
    """The SDK would send the token request to its path and query."""
    env = local.env
    address = f"{quote}{env['DATABRICKS_HOST']}/browse?o=1234567890{quote}"
    monkeypatch.setenv("DATABRICKS_HOST", address)
    arguments = None
    if source == "settings":
        names = ("client_id", "client_secret")
        arguments = {name: env[f"DATABRICKS_{name.upper()}"] for name in names}
        arguments["host"] = address.strip('"')

    config = new_client(Login("", "w", address, arguments=arguments)).config

    assert config.host == env["DATABRICKS_HOST"]
    assert config.workspace_id == "1234567890"


def test_groups_of_the_identity_are_fetched(local, new_wrapper):
    """The Postgres role of a group accepts the tokens of its members."""
    login = new_wrapper(**settings_for(local)).get_target().login

    assert Workspace(login).groups(timeout=60) == {GROUP}


LIST_SECRETS = (
    "from django_lakebase.auth.registry import access_to\n"
    "workspace = access_to(connection.get_target()).workspace\n"
    "assert len(workspace.secrets_expire_at(timeout=60)) == 1\n"
)


@pytest.mark.parametrize(
    ("use", "services"),
    [
        ("connection.cursor().execute('SELECT 1')\n", set()),
        (LIST_SECRETS, {"iam", "oauth2"}),
    ],
    ids=["query", "client-secrets"],
)
def test_new_process_loads_only_the_services_that_it_uses(local, use, services):
    """Other code may use all services."""
    code = (
        "import sys\n"
        "from django.conf import settings\n"
        "settings.configure(DATABASES={'default': {'ENGINE': 'django_lakebase'}})\n"
        "from django.db import connection\n"
        f"{use}"
        "start = 'databricks.sdk.service.'\n"
        "print(*(m.removeprefix(start) for m in sys.modules if m.startswith(start)))\n"
        "from databricks.sdk import WorkspaceClient\n"
        "print(WorkspaceClient.__name__)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **local.env},
        capture_output=True,
        text=True,
        check=True,
    )

    loaded, name = run.stdout.splitlines()
    # The module `azure` of the SDK imports `provisioning`.
    assert set(loaded.split()) == {"_internal", "postgres", "provisioning"} | services
    assert name == "WorkspaceClient"
