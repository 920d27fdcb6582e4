"""The import of the Databricks SDK."""

from databricks.sdk.config import Config

from django_lakebase.auth.sdk import import_sdk


def test_import_sdk_builds_the_list_of_settings(monkeypatch):
    """Threads that build it at the same time fail with "dictionary changed size"."""
    Config.attributes()
    monkeypatch.delattr(Config, "_attributes")

    import_sdk()

    assert "_attributes" in vars(Config)
