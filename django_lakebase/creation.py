"""Test databases: told apart by what they connect to, also where settings are bare."""

import re
from typing import TYPE_CHECKING, Any, cast

from django.db import connections
from django.db.backends.postgresql.creation import (
    DatabaseCreation as PostgreSQLDatabaseCreation,
)
from django.db.backends.utils import strip_quotes
from django.utils.functional import SimpleLazyObject

from . import config
from .connection import refusal, resolve_host, resolve_user
from .errors import explain
from .kinds import Source

if TYPE_CHECKING:
    from .base import LakebaseMixin

# What a role may lack when a test database is to be made.
EXPLAINED = ("createdb-missing", "template-denied")


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
        config.fill(self.connection.settings_dict, self.connection.alias)
        return cast("str", super()._get_test_db_name())  # type: ignore[misc]

    def _execute_create_test_db(
        self, cursor: Any, parameters: dict[str, str], keepdb: bool = False
    ) -> None:
        try:
            super()._execute_create_test_db(cursor, parameters, keepdb)  # type: ignore[misc]
        except SystemExit as end:
            # Django has quoted the server, and gives up.
            if (cause := end.__context__) is not None:
                self._log_mend(cause, strip_quotes(parameters["dbname"]))
            raise

    def _log_mend(self, cause: BaseException, name: str) -> None:
        failure = explain(cause, Source.SERVER)
        if failure.id in EXPLAINED:
            target = self._target()
            found = re.search(failure.pattern, str(cause))
            facts = {"user": resolve_user(target), "name": name}
            facts |= found.groupdict() if found else {}
            self.log(str(refusal(target, cause, failure, **facts)))

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        # PostgreSQL drops none that is in use, and pools of mirrors still are.
        for other in connections.all(initialized_only=True):
            is_there = other.settings_dict["NAME"] == test_database_name
            if is_there and isinstance(other.creation, DatabaseCreation):
                other.close()
                cast("LakebaseMixin", other).close_pool()
        super()._destroy_test_db(test_database_name, verbosity)  # type: ignore[misc]
