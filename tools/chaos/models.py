"""The table that the writers insert into."""

from django.db import models


class Entry(models.Model):
    """
    A row with the key of its operation.

    The key is not unique, so that a statement which is executed twice leaves two rows.
    """

    key = models.CharField(max_length=40)
    part = models.IntegerField()

    def __str__(self) -> str:
        return f"{self.key}/{self.part}"
