"""
Connection parameters whose values are fetched when psycopg uses them.

How it works. The parameters hold a `LazyValue` instead of the password, and instead of
a host or user that only the workspace knows. psycopg converts the object with ``str()``
when it opens a physical connection, so another library that took the parameters once
always connects with a current token. The engine's own attempts do not use lazy values:
the connector pins one credential and passes its token as a string, so that it knows
which token was rejected and when the credential of the connection expires.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

from django.db import connections

from django_lakebase.auth.registry import access_to
from django_lakebase.config.target import Target

from .errors import call_workspace

Params: TypeAlias = dict[str, Any]


class LazyValue:
    """
    A connection parameter that is fetched when psycopg converts it with ``str()``.

    *fetch* takes the seconds that it may wait. The repr shows no value. Copying returns
    the same object. Pickling stores only the names of alias and parameter; unpickling
    looks them up in the process that unpickles.
    """

    __slots__ = ("_fetch", "_parameter", "_target")

    def __init__(
        self, parameter: str, target: Target, fetch: Callable[[float], str]
    ) -> None:
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


def lazy_params(target: Target) -> Params:
    """Return lazy values for the password, and for an unknown host or user; no I/O."""
    if target.is_native:
        return {}
    access = access_to(target)
    params: Params = {
        "password": LazyValue(
            "password", target, lambda seconds: access.credentials.get(seconds).token
        )
    }
    if not target.host:
        params["host"] = LazyValue("host", target, access.host.get)
    if not target.user:
        params["user"] = LazyValue("user", target, access.user.get)
    return params


def get_host(target: Target) -> str:
    """Return the host, from the workspace if needed; raises LakebaseError."""
    return str(lazy_params(target).get("host", target.host))


def get_user(target: Target) -> str:
    """Return the user, from the workspace if needed; raises LakebaseError."""
    return str(lazy_params(target).get("user", target.user))
