"""A model with the package's manager."""

from django.db import models
from psqlextra.models import PostgresModel


class Meter(PostgresModel):
    """A meter and its current value."""

    name = models.CharField(max_length=20, unique=True)
    value = models.IntegerField()

    def __str__(self) -> str:
        return self.name
