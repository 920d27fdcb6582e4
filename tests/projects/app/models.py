"""Models for tests."""

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models


class Note(models.Model):
    """A note with one line of text."""

    text = models.CharField(max_length=100)
    written_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.text


class Member(AbstractBaseUser):
    """A user model without a name, groups and rights."""

    email = models.EmailField(unique=True, max_length=40)
    is_active = models.BooleanField(default=True)

    objects = BaseUserManager["Member"]()

    USERNAME_FIELD = "email"

    @property
    def first_name(self) -> str:
        """Return the part of the address before the domain."""
        return self.email.partition("@")[0]
