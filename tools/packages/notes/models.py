"""One small model."""

from django.db import models


class Note(models.Model):
    """A line of text."""

    text = models.CharField(max_length=100)
    written_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.text
