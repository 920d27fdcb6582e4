"""dbshell: psql with a fresh token, which is in its environment and never in argv."""

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.postgresql.client import (
    DatabaseClient as PostgreSQLDatabaseClient,
)

from . import config, libpq
from .connection import LakebaseError, lazy_params, resolve_host, resolve_user


class DatabaseClient(PostgreSQLDatabaseClient):
    """Runs psql, logged in as Django would be."""

    def runshell(self, parameters: Iterable[str]) -> None:
        """Run psql; what keeps it from logging in is told without a traceback."""
        try:
            super().runshell(parameters)
        except (LakebaseError, ImproperlyConfigured) as exc:
            raise CommandError(str(exc)) from exc

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        """
        Return psql's arguments and environment; asks the workspace where it must.

        Raises LakebaseError, or ImproperlyConfigured.
        """
        target = config.read(settings_dict, _alias_of(settings_dict))
        options = settings_dict["OPTIONS"]
        native = settings_dict.get("PASSWORD") or options.get("password")
        password = lazy_params(target).get("password", native)
        arguments, environment = super().settings_to_cmd_args_env(
            {
                **settings_dict,
                "HOST": resolve_host(target),
                "USER": resolve_user(target),
                "PORT": target.port,
                "PASSWORD": str(password or ""),
                "NAME": libpq.psql_conninfo(target, options),
            },
            parameters,
        )
        return arguments, {**(environment or {}), **libpq.psql_environment(options)}


def _alias_of(settings_dict: dict[str, Any]) -> str:
    """Return the alias for messages: Django passes a client its settings alone."""
    named = (
        alias for alias, own in connections.settings.items() if own is settings_dict
    )
    return next(named, DEFAULT_DB_ALIAS)
