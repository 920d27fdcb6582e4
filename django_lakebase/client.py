"""dbshell: psql with a current token in its environment, never in its arguments."""

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.postgresql.client import (
    DatabaseClient as PostgreSQLDatabaseClient,
)

from .config import libpq
from .config.target import resolve_target
from .connect.params import get_host, get_user, lazy_params
from .exceptions import LakebaseError


class DatabaseClient(PostgreSQLDatabaseClient):
    """Runs psql with the same login as Django."""

    def runshell(self, parameters: Iterable[str]) -> None:
        """Run psql; errors before the login are shown without a traceback."""
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

        Raises LakebaseError, or ImproperlyConfigured.
        """
        target = resolve_target(settings_dict, _alias_of(settings_dict))
        options = settings_dict["OPTIONS"]
        native = settings_dict.get("PASSWORD") or options.get("password")
        password = lazy_params(target).get("password", native)
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
    """Return the alias for messages, because Django passes only the settings."""
    named = (
        alias for alias, own in connections.settings.items() if own is settings_dict
    )
    return next(named, DEFAULT_DB_ALIAS)
