"""The app, which may query the database while Django starts."""

import os

from django.apps import AppConfig
from django.db import connections


class CatalogConfig(AppConfig):
    """The app of the shop."""

    name = "catalog"

    def ready(self) -> None:
        """Read a row before the test database exists, as some projects do."""
        if os.environ.get("SHOP_READS_EARLY"):
            for alias in connections:
                connections[alias].cursor().execute("SELECT 1")
