"""One table, so that there is something to read."""

from django.db import models


class Note(models.Model):
    """A line about what the reader sees."""

    text = models.CharField(max_length=200)
    written_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return self.text
