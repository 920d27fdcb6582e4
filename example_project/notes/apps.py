"""The app of the notes."""

from django.apps import AppConfig


class NotesConfig(AppConfig):
    """Starts to record when Django starts, before the first connection."""

    name = "example_project.notes"

    def ready(self) -> None:
        """Connect the receivers of signals."""
        from . import recorder  # noqa: F401
