"""The app, which may connect before the server forks its workers."""

import os

from django.apps import AppConfig


class SiteConfig(AppConfig):
    """An app that queries while Django starts, which Django discourages."""

    name = "tests.projects.site"
    label = "site"

    def ready(self) -> None:
        """Leave a connection open if the environment says so."""
        if os.environ.get("SITE_IS_WARM"):
            from example_project.notes.models import Note

            Note.objects.count()
