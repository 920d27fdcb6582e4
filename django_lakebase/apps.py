"""The Django app: registers the system checks and starts telemetry."""

import importlib.util

from django.apps import AppConfig
from django.core import checks


class LakebaseConfig(AppConfig):
    """The app that Django loads for ``"django_lakebase"`` in INSTALLED_APPS."""

    name = "django_lakebase"
    verbose_name = "Lakebase"

    def ready(self) -> None:
        """Register the system checks; start telemetry if OpenTelemetry is installed."""
        from .checks import check_databases

        checks.register(check_databases)
        if _has_opentelemetry():
            from .telemetry import start_once

            start_once()


def _has_opentelemetry() -> bool:
    try:
        return bool(importlib.util.find_spec("opentelemetry.metrics"))
    except ModuleNotFoundError:
        return False
