"""What our own file about the SDK promises, where no journey can be sure to see it."""

from databricks.sdk.config import Config

from django_lakebase.local.estate import GROUP
from django_lakebase.workspace import fetch_groups, import_sdk
from tests.support import settings_for


def test_the_sdk_s_list_of_settings_is_made_before_there_are_threads(monkeypatch):
    """Two that make it at once end in "dictionary changed size during iteration"."""
    Config.attributes()
    monkeypatch.delattr(Config, "_attributes")

    import_sdk()

    assert "_attributes" in vars(Config)


def test_groups_of_the_identity_are_fetched(local, new_wrapper):
    """Their names are those of the Postgres roles that take its token."""
    login = new_wrapper(**settings_for(local)).get_target().login

    assert fetch_groups(login) == {GROUP}
