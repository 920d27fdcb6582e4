"""A table with an index that was made too quickly."""

from django.db import models


class Order(models.Model):
    """A customer's wish."""

    note = models.CharField(max_length=20, db_index=True)
    number = models.IntegerField()

    def __str__(self) -> str:
        return self.note
