"""What meters say."""

from django.db import models
from psqlextra.models import PostgresModel


class Meter(PostgresModel):
    """A meter and what it says now."""

    name = models.CharField(max_length=20, unique=True)
    value = models.IntegerField()

    def __str__(self) -> str:
        return self.name
