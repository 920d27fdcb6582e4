"""
The parameters that psycopg and psql get, in two forms.

How it works. Some parameters are known only when a connection is opened: the password,
if it is a token, and a host or user that only the workspace knows. The *lazy* form has
a `LazyValue` in their place, which psycopg converts with ``str()`` when it opens a
physical connection. A library that took the parameters once therefore always connects
with a current token. The engine's own attempts use the *pinned* form: the connector
replaces these values with those of one credential, so that it knows which token was
rejected and when the credential of the connection expires.
"""

from functools import partial
from typing import Any, TypeAlias

from django.conf import settings
from django.db import connections

from django_lakebase.auth.strategies import Getter, auth_for
from django_lakebase.config import libpq
from django_lakebase.config.resolve import OWN_OPTIONS
from django_lakebase.config.server_settings import server_setting
from django_lakebase.config.target import Target

from .errors import call_workspace

Params: TypeAlias = dict[str, Any]

# Detect half-open connections after about a minute instead of two hours. In seconds,
# except for tcp_user_timeout, which is in milliseconds.
KEEPALIVES = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30000,
}

_TIMEZONE = server_setting("TimeZone", "")
_TIMEZONE_REJECTED = ("unsupported startup parameter", 'for parameter "TimeZone"')
# Targets whose server or proxy has rejected the time zone in the startup packet.
_without_timezone: set[Target] = set()


class LazyValue:
    """
    A connection parameter that is fetched when psycopg converts it with ``str()``.

    *fetch* takes the seconds that it may wait. The repr shows no value. Copying returns
    the same object. Pickling stores only the names of alias and parameter; unpickling
    looks them up in the process that unpickles.
    """

    __slots__ = ("_fetch", "_parameter", "_target")

    def __init__(self, parameter: str, target: Target, fetch: Getter) -> None:
        self._parameter, self._target, self._fetch = parameter, target, fetch

    def __str__(self) -> str:
        return call_workspace(
            self._target, lambda: self._fetch(self._target.connect_budget)
        )

    def __repr__(self) -> str:
        return f"<{self._parameter} of {self._target.label}, fetched when used>"

    def __copy__(self) -> "LazyValue":
        return self

    def __deepcopy__(self, memo: object) -> "LazyValue":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle, (self._target.alias, self._parameter)


def _unpickle(alias: str, parameter: str) -> object:
    return connections[alias].get_connection_params()[parameter]


def lazy_params(
    target: Target, django_params: Params, options: Params, timezone: str | None
) -> Params:
    """
    Return psycopg's parameters; does no I/O.

    *django_params* are those of Django's backend, *options* the project's OPTIONS.
    *timezone* is what `startup_timezone` has returned.
    """
    params: Params = {
        **KEEPALIVES,
        "fallback_application_name": _application_name(),
        **{name: v for name, v in django_params.items() if name not in OWN_OPTIONS},
        **libpq.connection_params(target, options, _startup_options(target, timezone)),
    }
    if password := params.get("password"):
        # Debug pages show the repr; only psycopg calls str().
        params["password"] = LazyValue("password", target, lambda _: password)
    return params | _lazy_values(target)


def startup_timezone(target: Target, timezone: str | None) -> str | None:
    """Return *timezone*, or None if the server has rejected one at startup."""
    return None if target in _without_timezone else timezone


def psql_settings(target: Target, settings_dict: Params) -> Params:
    """
    Return the settings from which Django builds psql's arguments and environment.

    Raises LakebaseError if a value that only the workspace knows cannot be fetched.
    """
    options = settings_dict["OPTIONS"]
    password = settings_dict.get("PASSWORD") or options.get("password") or ""
    return {
        **settings_dict,
        "HOST": get_host(target),
        "USER": get_user(target),
        "PORT": target.port,
        "PASSWORD": str(_lazy_values(target).get("password", password)),
        "NAME": libpq.psql_conninfo(target, options),
    }


def get_host(target: Target) -> str:
    """Return the host, from the workspace if needed; raises LakebaseError."""
    return str(_lazy_values(target).get("host", target.host))


def get_user(target: Target) -> str:
    """Return the user, from the workspace if needed; raises LakebaseError."""
    return str(_lazy_values(target).get("user", target.user))


def drop_rejected_timezone(
    target: Target, params: Params, error: BaseException
) -> bool:
    """
    Remove the time zone from *params* if *error* says that it was rejected.

    Returns whether it was. Later connections to *target* then do without, and Django
    sets the time zone with a query.
    """
    options, text = str(params.get("options") or ""), str(error)
    is_rejected = any(rejection in text for rejection in _TIMEZONE_REJECTED)
    if not is_rejected or _TIMEZONE not in options:
        return False
    params["options"] = options.rpartition(_TIMEZONE)[0].strip()
    _without_timezone.add(target)
    return True


def _lazy_values(target: Target) -> Params:
    names = auth_for(target).getters
    return {
        name: LazyValue(name, target, partial(_fetch, target, name)) for name in names
    }


def _fetch(target: Target, name: str, seconds: float) -> str:
    # The parameters may be older than the registry's entry for the target.
    return auth_for(target).getters[name](seconds)


def _startup_options(target: Target, timezone: str | None) -> str:
    """Return libpq's *options* with the time zone, which saves a round trip."""
    if not timezone:
        return target.libpq_options
    return f"{target.libpq_options} {server_setting('TimeZone', timezone)}".strip()


def _application_name() -> str:
    """Return the default application name, shown in pg_stat_activity."""
    project = (settings.SETTINGS_MODULE or "django").partition(".")[0]
    return f"{project} (django_lakebase)"
