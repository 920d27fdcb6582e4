"""
The settings of one alias and the environment, read without changing either.

Each value comes with the name of the setting or variable that it was read from, so that
errors can name it.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from django.db.backends.base.base import NO_DB_ALIAS

from django_lakebase.exceptions import SettingsError
from django_lakebase.failures.classify import failures_by_id, scrub
from django_lakebase.failures.render import build_error

from .pasted_values import (
    clean,
    mask_user_info,
    parse_boolean,
    parse_host,
    parse_integer,
)
from .target import DEFAULT_DATABASE, USER_VARIABLES

# The keys of OPTIONS that supply a password.
PASSWORD_OPTIONS = ("password", "passfile", "service")
# Settings and options whose values are text if they come from a URL or a variable.
# Django and psycopg do not convert them.
PARSERS: dict[str, Callable[[Any], Any]] = {
    "ATOMIC_REQUESTS": parse_boolean,
    "AUTOCOMMIT": parse_boolean,
    "CONN_HEALTH_CHECKS": parse_boolean,
    "DISABLE_SERVER_SIDE_CURSORS": parse_boolean,
    "CONN_MAX_AGE": lambda value: 0 if value == "" else parse_integer(value),
    "pool": parse_boolean,
    "server_side_binding": parse_boolean,
    "reconnect": parse_boolean,
    "refresh_before_fork": parse_boolean,
    "prepare_threshold": parse_integer,
}


class Filled(str):
    """A value from the environment in a setting that the project left empty."""

    __slots__ = ()


class Value(NamedTuple):
    """A text, and the setting or variable that it comes from; false if it is empty."""

    text: str = ""
    name: str = ""

    def __bool__(self) -> bool:
        return bool(self.text)


class Sources:
    """
    The settings of one alias, and the environment.

    *options* is a converted copy of OPTIONS. *password* is the setting that makes the
    login native. *names_endpoint* is whether the settings name a database: they then
    win as a group, because the variables may belong to another database.
    """

    def __init__(
        self,
        settings_dict: Mapping[str, Any],
        alias: str,
        environ: Mapping[str, str] | None,
    ) -> None:
        self.settings, self.alias = settings_dict, alias
        # No frame has the environment in a local variable, for the sake of debug pages.
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.label = f'DATABASES["{alias}"]'
        if alias == NO_DB_ALIAS:
            self.label = 'DATABASES (Django\'s connection to the "postgres" database)'
        # Django connects to the database "postgres" with NAME set to None.
        self.is_maintenance = alias == NO_DB_ALIAS and settings_dict.get("NAME") is None
        options = settings_dict.get("OPTIONS")
        given = options if isinstance(options, dict) else {}
        self.options = {k: v for k, v in given.items() if v is not None}
        self.options |= converted(self.options)
        passwords = {f'OPTIONS["{key}"]': given.get(key) for key in PASSWORD_OPTIONS}
        passwords = {"PASSWORD": settings_dict.get("PASSWORD"), **passwords}
        self.password = next(
            (Value(str(v), n) for n, v in passwords.items() if v), Value()
        )
        # A HOST equal to PGHOST names the database of the environment.
        host = self.setting("HOST").text.lower()
        self.has_own_host = host not in ("", self._pghost().text.lower())
        self.names_endpoint = bool(
            self.password or self.option("endpoint") or self.has_own_host
        )

    @property
    def host_setting(self) -> str:
        """The setting or variable that the host comes from, if it is set."""
        return "HOST" if self.names_endpoint else "PGHOST"

    def setting(self, key: str) -> Value:
        """Return the value that the project set; empty if it was filled."""
        value = self.settings.get(key)
        if value is None or isinstance(value, Filled):
            return Value("", key)
        text = clean(str(value))
        return Value(parse_host(text) if key == "HOST" else text, key)

    def option(self, key: str) -> Value:
        """Return a value of OPTIONS."""
        return Value(clean(str(self.options.get(key) or "")), f'OPTIONS["{key}"]')

    def variable(self, *names: str) -> Value:
        """Return the first of the variables that is set."""
        values = (Value(read_variable(name, self.environ), name) for name in names)
        return next(filter(None, values), Value("", names[0]))

    def option_or_variable(self, key: str, name: str) -> Value:
        """
        Return a value of OPTIONS, or else the variable *name*.

        The variable is about one database, so it is not read if the settings name one.
        """
        option = self.option(key)
        return option if option or self.names_endpoint else self.variable(name)

    def field(self, key: str) -> Value:
        """Return NAME, USER, HOST or PORT of the project, or else its default."""
        return self.setting(key) or self.default(key)

    def default(self, key: str) -> Value:
        """Return the value for NAME, USER, HOST or PORT if the project set none."""
        if key == "HOST":
            return Value() if self.names_endpoint else self._pghost()
        if key == "USER":
            return self._default_user()
        if self.option("service") or (key == "NAME" and self.is_maintenance):
            return Value()
        if key == "PORT":
            return self.variable("PGPORT")
        return self.variable("PGDATABASE") or Value(DEFAULT_DATABASE, "PGDATABASE")

    def _pghost(self) -> Value:
        text, name = self.variable("PGHOST")
        return Value(parse_host(text), name)

    def _default_user(self) -> Value:
        workspace = self.options.get("workspace")
        if self.password:
            return Value()
        if not workspace:
            return self.variable(*USER_VARIABLES)
        arguments = workspace if isinstance(workspace, Mapping) else {}
        text = clean(str(arguments.get("client_id") or ""))
        return Value(text, 'OPTIONS["workspace"]["client_id"]')

    def rejection(
        self, failure_id: str, value: Value | None = None, **facts: object
    ) -> SettingsError:
        """Return the error *failure_id*, which may be about *value*."""
        if value is not None:
            # A pasted connection URL contains a password.
            facts["value"] = scrub(mask_user_info(value.text))
            facts["name"] = value.name
        failure = failures_by_id()[failure_id]
        return build_error(SettingsError, failure, self.label, facts)

    def invalid(self, value: Value, problem: str, fix: str) -> SettingsError:
        """Return the error for a *value* that cannot be parsed."""
        return self.rejection("value-invalid", value, problem=problem, fix=fix)


def read_variable(name: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the environment variable *name* without surrounding blanks and quotes."""
    return clean(environ.get(name, ""))


def converted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of *values* that `PARSERS` has a row for, converted if possible."""
    return {key: parse(values[key]) for key, parse in PARSERS.items() if key in values}
