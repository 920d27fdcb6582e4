"""Creates the schema, as the templates do before they migrate."""

from typing import Any

from django.conf import settings
from django.core.management import BaseCommand
from django.db import connection


class Command(BaseCommand):
    """Creates the schema of the settings."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Execute the statement."""
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE SCHEMA IF NOT EXISTS "{settings.SCHEMA}"')
