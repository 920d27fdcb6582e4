"""The app, which may ask the database while Django starts."""

import os

from django.apps import AppConfig
from django.db import connections


class CatalogConfig(AppConfig):
    """The shop's only app."""

    name = "catalog"

    def ready(self) -> None:
        """Read a row before there is a test database, as some projects do."""
        if os.environ.get("SHOP_READS_EARLY"):
            for alias in connections:
                connections[alias].cursor().execute("SELECT 1")
