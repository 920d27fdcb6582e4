"""Test databases: told apart by what they connect to, also where settings are bare."""

from typing import TYPE_CHECKING, Any, cast

from django.db import connections
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

    def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
        """Lead the alias to another's test database, also if it was in use before."""
        super().set_as_test_mirror(primary_settings_dict)
        # It leads to the real database.
        self.connection.close()

    def _target(self) -> config.Target:
        return cast("LakebaseMixin", self.connection).get_target()

    def _get_test_db_name(self) -> str:
        # Settings may have been assigned since the wrapper was made.
        config.fill(self.connection.settings_dict)
        return cast("str", super()._get_test_db_name())  # type: ignore[misc]

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        # PostgreSQL drops none that is in use, and pools of mirrors still are.
        for other in connections.all(initialized_only=True):
            is_there = other.settings_dict["NAME"] == test_database_name
            if is_there and isinstance(other.creation, DatabaseCreation):
                other.close()
                cast("LakebaseMixin", other).close_pool()
        super()._destroy_test_db(test_database_name, verbosity)  # type: ignore[misc]
