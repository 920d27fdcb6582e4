"""What the worker does."""

from procrastinate.contrib.django import app

from tests.projects.app.models import Note


@app.task
def note(text: str) -> None:
    """Write a note, through the ORM."""
    Note.objects.create(text=text)
