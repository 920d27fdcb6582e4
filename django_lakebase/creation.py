"""
Creation and destruction of test databases.

Differs from Django's: aliases are compared by the host that they connect to, errors get
a hint, and pools are closed before their database is dropped.
"""

import re
from typing import Any, Protocol, cast

from django.db import connections
from django.db.backends.postgresql.creation import (
    DatabaseCreation as PostgreSQLDatabaseCreation,
)
from django.db.backends.utils import strip_quotes
from django.utils.functional import SimpleLazyObject

from .config.fill import fill_settings
from .config.target import Target
from .connect.errors import connect_error
from .connect.params import get_host, get_user
from .failures.classify import classify
from .failures.failure import Source

# Ids of failures for which the engine prints a hint after Django's message.
FAILURES_WITH_HINT = ("createdb-missing", "template-denied")


class _Wrapper(Protocol):
    """The part of LakebaseMixin used here; importing base.py would be circular."""

    def get_target(self) -> Target: ...

    def close_pool(self) -> None: ...


class DatabaseCreation(PostgreSQLDatabaseCreation):
    """Creates and destroys test databases."""

    def test_db_signature(self) -> tuple[Any, ...]:
        """
        Return the values by which Django compares the test databases of aliases.

        Two aliases without HOST look the same to Django, even if their endpoints
        differ, and Django would make the second a mirror of the first. The signature
        therefore contains the host that the workspace reports. It is fetched only when
        the signature is compared, because Django also calls this method for tests
        without a database.
        """
        _, *rest = super().test_db_signature()
        return (SimpleLazyObject(lambda: get_host(self._target())), *rest)

    def set_as_test_mirror(self, primary_settings_dict: dict[str, Any]) -> None:
        """Redirect the alias to another's test database, and close its connection."""
        super().set_as_test_mirror(primary_settings_dict)
        # An open connection is still connected to the real database.
        self.connection.close()

    def _target(self) -> Target:
        return cast("_Wrapper", self.connection).get_target()

    def _get_test_db_name(self) -> str:
        # Settings may have been assigned since the wrapper was created.
        fill_settings(self.connection.settings_dict, self.connection.alias)
        return cast("str", super()._get_test_db_name())  # type: ignore[misc]

    def _execute_create_test_db(
        self, cursor: Any, parameters: dict[str, str], keepdb: bool = False
    ) -> None:
        try:
            super()._execute_create_test_db(cursor, parameters, keepdb)  # type: ignore[misc]
        except SystemExit as exit_error:
            # Django has printed the server's message and exits.
            if (cause := exit_error.__context__) is not None:
                self._log_hint(cause, strip_quotes(parameters["dbname"]))
            raise

    def _log_hint(self, cause: BaseException, database: str) -> None:
        """Print the hint for *cause*, if it has one, as Django prints messages."""
        failure = classify(cause, Source.SERVER)
        if failure.id in FAILURES_WITH_HINT:
            target = self._target()
            found = re.search(failure.pattern, str(cause))
            facts = {"user": get_user(target), "name": database}
            facts |= found.groupdict() if found else {}
            self.log(str(connect_error(target, cause, failure, **facts)))

    def _destroy_test_db(self, test_database_name: str, verbosity: int) -> None:
        # PostgreSQL does not drop a database that is in use, and the mirrors of this
        # alias are still connected to it, as are their pools.
        for other in connections.all(initialized_only=True):
            is_connected = other.settings_dict["NAME"] == test_database_name
            if is_connected and isinstance(other.creation, DatabaseCreation):
                other.close()
                cast("_Wrapper", other).close_pool()
        super()._destroy_test_db(test_database_name, verbosity)  # type: ignore[misc]
