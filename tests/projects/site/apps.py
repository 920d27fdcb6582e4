"""The app, which warms a process up that others are forked from."""

import os

from django.apps import AppConfig


class SiteConfig(AppConfig):
    """Queries while Django starts, as projects do though they should not."""

    name = "tests.projects.site"
    label = "site"

    def ready(self) -> None:
        """Leave a connection open where the environment says so."""
        if os.environ.get("SITE_IS_WARM"):
            from example_project.notes.models import Note

            Note.objects.count()
