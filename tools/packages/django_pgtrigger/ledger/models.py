"""Entries that nobody takes back."""

import pgtrigger
from django.db import models


class Entry(models.Model):
    """A line of the ledger."""

    amount = models.IntegerField()

    class Meta:
        triggers = (pgtrigger.Protect(name="kept", operation=pgtrigger.Delete),)

    def __str__(self) -> str:
        return str(self.amount)
