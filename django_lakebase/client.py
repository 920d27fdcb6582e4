"""
The client behind ``manage.py dbshell``: psql, logging in as Django does.

The token is passed in psql's environment, never in its arguments, which other users of
the machine can see.
"""

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.postgresql.client import (
    DatabaseClient as PostgreSQLDatabaseClient,
)

from .config.fill import fill_settings
from .config.libpq import psql_environment
from .config.resolve import resolve_target
from .connect.params import psql_settings
from .exceptions import LakebaseError


class DatabaseClient(PostgreSQLDatabaseClient):
    """Runs psql with the same login as Django."""

    def runshell(self, parameters: Iterable[str]) -> None:
        """Run psql; raises CommandError if the parameters cannot be resolved."""
        try:
            super().runshell(parameters)
        except (LakebaseError, ImproperlyConfigured) as exc:
            # Imported here, because every process imports this module with the engine.
            from django.core.management import CommandError

            raise CommandError(str(exc)) from exc

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        """
        Return psql's arguments and environment; calls the workspace if needed.

        Raises LakebaseError or ImproperlyConfigured.
        """
        alias = _alias_of(settings_dict)
        fill_settings(settings_dict, alias)
        target = resolve_target(settings_dict, alias)
        arguments, environment = super().settings_to_cmd_args_env(
            psql_settings(target, settings_dict), parameters
        )
        overrides = psql_environment(target, settings_dict["OPTIONS"])
        return arguments, {**(environment or {}), **overrides}


def _alias_of(settings_dict: dict[str, Any]) -> str:
    """Return the alias of *settings_dict*, for messages: Django does not pass it."""
    matching = (
        alias
        for alias, candidate in connections.settings.items()
        if candidate is settings_dict
    )
    return next(matching, DEFAULT_DB_ALIAS)
