"""The model of the shop."""

from django.db import models


class Product(models.Model):
    """A product that is sold."""

    name = models.CharField(max_length=50)
