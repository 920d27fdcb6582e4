"""A model with a geographic field."""

from django.contrib.gis.db import models


class Place(models.Model):
    """A place on the globe, measured in meters."""

    name = models.CharField(max_length=20)
    point = models.PointField(geography=True)

    def __str__(self) -> str:
        return self.name
