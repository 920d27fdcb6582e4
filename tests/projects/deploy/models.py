"""Models whose migrations wait for locks that a test holds."""

from django.db import models


class Item(models.Model):
    """Its system checks need the version of the server."""

    name = models.CharField(max_length=50)

    class Meta:
        """A constraint of PostgreSQL 15, and an index."""

        indexes = (models.Index(fields=["name"], name="item_name"),)
        constraints = (
            models.UniqueConstraint(
                fields=["name"], nulls_distinct=False, name="item_unique"
            ),
        )

    def __str__(self) -> str:
        """Return the name."""
        return self.name


class Order(models.Model):
    """Its foreign key is added with the last statement of its migration."""

    item = models.ForeignKey(Item, models.CASCADE)

    def __str__(self) -> str:
        """Return the item."""
        return str(self.item)
