"""A table to which a migration adds an index, without CONCURRENTLY."""

from django.db import models


class Order(models.Model):
    """A customer's order."""

    note = models.CharField(max_length=20, db_index=True)
    number = models.IntegerField()

    def __str__(self) -> str:
        return self.note
