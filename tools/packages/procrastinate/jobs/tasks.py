"""The task of the worker."""

from procrastinate.contrib.django import app

from tools.packages.notes.models import Note


@app.task
def note(text: str) -> None:
    """Create a note."""
    Note.objects.create(text=text)
