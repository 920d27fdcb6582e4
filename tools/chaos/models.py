"""The table that the writers write to."""

from django.db import models


class Entry(models.Model):
    """
    A row with its idempotency key.

    The key is not unique: a statement that ran twice must show.
    """

    key = models.CharField(max_length=40)
    part = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.key}/{self.part}"
