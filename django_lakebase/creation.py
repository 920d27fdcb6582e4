"""Test databases: told apart by what they connect to, also where settings are bare."""

from typing import TYPE_CHECKING, Any, cast

from django.db.backends.postgresql.creation import (
    DatabaseCreation as PostgreSQLDatabaseCreation,
)
from django.utils.functional import SimpleLazyObject

from . import config
from .connection import resolve_host

if TYPE_CHECKING:
    from .base import LakebaseMixin


class DatabaseCreation(PostgreSQLDatabaseCreation):
    """Creates and destroys test databases."""

    def test_db_signature(self) -> tuple[Any, ...]:
        """
        Return what tells this alias's test database from others'.

        Two endpoints without HOST look the same to Django, which would make the
        second alias a mirror of the first; so the workspace is asked for the host.
        Only when it is compared: Django makes one for tests without a database too.
        """
        _, *rest = super().test_db_signature()
        return (SimpleLazyObject(lambda: resolve_host(self._target())), *rest)

    def _target(self) -> config.Target:
        return cast("LakebaseMixin", self.connection).get_target()

    def _get_test_db_name(self) -> str:
        # Settings may have been assigned since the wrapper was made.
        config.fill(self.connection.settings_dict)
        return cast("str", super()._get_test_db_name())  # type: ignore[misc]
