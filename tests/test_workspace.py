"""What our own file about the SDK promises, where no journey can be sure to see it."""

import pytest
from databricks.sdk.config import Config

from django_lakebase.config import Login
from django_lakebase.local.state.model import GROUP
from django_lakebase.login import new_client
from django_lakebase.workspace import fetch_groups, import_sdk
from tests.support import settings_for


def test_the_sdk_s_list_of_settings_is_made_before_there_are_threads(monkeypatch):
    """Two that make it at once end in "dictionary changed size during iteration"."""
    Config.attributes()
    monkeypatch.delattr(Config, "_attributes")

    import_sdk()

    assert "_attributes" in vars(Config)


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("source", ["environment", "settings"])
def test_address_copied_from_a_browser_names_the_workspace_too(
    local, monkeypatch, source, quote
):
    """The SDK would keep the path and the query, and ask them for a token."""
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
    """Their names are those of the Postgres roles that take its token."""
    login = new_wrapper(**settings_for(local)).get_target().login

    assert fetch_groups(login) == {GROUP}
