"""The app: brings the commands and the system checks."""

from django.apps import AppConfig
from django.core import checks


class LakebaseConfig(AppConfig):
    """``"django_lakebase"`` in INSTALLED_APPS."""

    name = "django_lakebase"
    verbose_name = "Lakebase"

    def ready(self) -> None:
        """Register the system checks."""
        from .checks import check_databases

        checks.register(check_databases)
