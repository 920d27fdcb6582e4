"""What meters say."""

from django.db import models
from psqlextra.models import PostgresModel, PostgresPartitionedModel
from psqlextra.types import PostgresPartitioningMethod


class Meter(PostgresModel):
    """A meter and what it says now."""

    name = models.CharField(max_length=20, unique=True)
    value = models.IntegerField()

    def __str__(self) -> str:
        return self.name


class Reading(PostgresPartitionedModel):
    """What a meter said in a year."""

    year = models.IntegerField()

    class PartitioningMeta:
        method = PostgresPartitioningMethod.LIST
        key = ["year"]

    def __str__(self) -> str:
        return str(self.year)
