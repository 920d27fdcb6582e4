"""The shop's only model."""

from django.db import models


class Product(models.Model):
    """Something that is sold."""

    name = models.CharField(max_length=50)
