"""The import of the Databricks SDK."""

from databricks.sdk.config import Config

from django_lakebase.workspace import import_sdk


def test_the_sdk_s_list_of_settings_is_made_before_there_are_threads(monkeypatch):
    """Two that make it at once end in "dictionary changed size during iteration"."""
    Config.attributes()
    monkeypatch.delattr(Config, "_attributes")

    import_sdk()

    assert "_attributes" in vars(Config)
