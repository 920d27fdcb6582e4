"""A model, so that the page has rows to show."""

from django.db import models


class Note(models.Model):
    """A line of text on the page."""

    text = models.CharField(max_length=200)
    written_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return self.text
