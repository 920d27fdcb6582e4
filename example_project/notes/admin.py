"""The admin of the notes."""

from django.contrib import admin

from .models import Note


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Lists notes with the time they were written."""

    list_display = ("text", "written_at")
