"""A model whose rows cannot be deleted."""

import pgtrigger
from django.db import models


class Entry(models.Model):
    """An entry of a ledger."""

    amount = models.IntegerField()

    class Meta:
        triggers = (pgtrigger.Protect(name="kept", operation=pgtrigger.Delete),)

    def __str__(self) -> str:
        return str(self.amount)
