"""
The client behind ``manage.py dbshell``: psql, logging in as Django does.

The token is passed in psql's environment, never in its arguments, which other users of
the machine can see.
"""

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.postgresql.client import (
    DatabaseClient as PostgreSQLDatabaseClient,
)

from .config import libpq
from .config.fill import fill_settings
from .config.resolve import resolve_target
from .connect.lazy_params import get_host, get_user, lazy_params
from .exceptions import LakebaseError


class DatabaseClient(PostgreSQLDatabaseClient):
    """Runs psql with the same login as Django."""

    def runshell(self, parameters: Iterable[str]) -> None:
        """Run psql; raises CommandError if the parameters cannot be resolved."""
        try:
            super().runshell(parameters)
        except (LakebaseError, ImproperlyConfigured) as exc:
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
        options = settings_dict["OPTIONS"]
        native_password = settings_dict.get("PASSWORD") or options.get("password")
        password = lazy_params(target).get("password", native_password)
        arguments, environment = super().settings_to_cmd_args_env(
            {
                **settings_dict,
                "HOST": get_host(target),
                "USER": get_user(target),
                "PORT": target.port,
                "PASSWORD": str(password or ""),
                "NAME": libpq.psql_conninfo(target, options),
            },
            parameters,
        )
        return arguments, {**(environment or {}), **libpq.psql_environment(options)}


def _alias_of(settings_dict: dict[str, Any]) -> str:
    """Return the alias of *settings_dict*, for messages: Django does not pass it."""
    matching = (
        alias
        for alias, candidate in connections.settings.items()
        if candidate is settings_dict
    )
    return next(matching, DEFAULT_DB_ALIAS)
