"""The Django app: registers the system checks."""

from django.apps import AppConfig
from django.core import checks


class DatabricksAppsConfig(AppConfig):
    """The app for ``"django_lakebase.contrib.databricks_apps"`` in INSTALLED_APPS."""

    name = "django_lakebase.contrib.databricks_apps"
    label = "databricks_apps"
    verbose_name = "Databricks Apps"

    def ready(self) -> None:
        """Register the system checks."""
        from .checks import check_sign_in

        checks.register(check_sign_in)
