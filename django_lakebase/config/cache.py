"""
A cache for one Target, which is resolved again if settings or environment change.

Django asks for a connection's pool at each request, and the pool depends on the Target.
Resolving the Target takes longer than the request's query; comparing the settings and
the environment with copies takes three microseconds.
"""

import os
from collections.abc import Hashable, Mapping
from typing import Any

from .fill import fill_settings
from .login import LOGIN_VARIABLES
from .resolve import resolve_target
from .target import Target

# The prefixes of all variables that a connection depends on.
PREFIXES = ("PG", "LAKEBASE_", "ENDPOINT_NAME", "SSL_CERT_FILE", *LOGIN_VARIABLES)
# Reading bytes takes half as long, because nothing is encoded or decoded.
_ENVIRON: Mapping[Any, Any] = os.environb if os.supports_bytes_environ else os.environ


class Resolved:
    """
    A Target, and copies of what it was resolved from; its repr shows neither.

    *derived* is for values that depend only on the Target and on their key.
    """

    def __init__(
        self, settings_dict: dict[str, Any], alias: str, target: Target
    ) -> None:
        self.target = target
        self.derived: dict[Hashable, Any] = {}
        self._settings, self._alias = _copy(settings_dict), alias
        self._size = len(_ENVIRON)
        self._names = [n for n in _ENVIRON if os.fsdecode(n).startswith(PREFIXES)]
        self._values = [_ENVIRON[name] for name in self._names]

    def is_current(self, settings_dict: dict[str, Any], alias: str) -> bool:
        """
        Return whether the settings and the environment are unchanged.

        A new variable shows in their number: looking for its name would take ten times
        as long. It is missed if another variable was removed since the last call.
        """
        return (
            self._settings == settings_dict
            # A value filled from the environment equals the same value set by the
            # project. Only of the user, the Target contains where it comes from.
            and type(self._settings["USER"]) is type(settings_dict["USER"])
            and self._alias == alias
            and self._size == len(_ENVIRON)
            and self._is_environment_unchanged()
        )

    def _is_environment_unchanged(self) -> bool:
        try:
            return [_ENVIRON[name] for name in self._names] == self._values
        except KeyError:
            return False


class TargetCache:
    """The latest `Resolved` of one connection."""

    def __init__(self) -> None:
        self._resolved: Resolved | None = None

    def get(self, settings_dict: dict[str, Any], alias: str) -> Resolved:
        """
        Fill *settings_dict*, and resolve it together with the environment.

        Returns the same object as long as neither has changed. Raises SettingsError.
        """
        resolved = self._resolved
        if resolved is None or not resolved.is_current(settings_dict, alias):
            fill_settings(settings_dict, alias)
            target = resolve_target(settings_dict, alias)
            # A single assignment, because threads may share a connection.
            self._resolved = resolved = Resolved(settings_dict, alias, target)
        return resolved


def _copy(value: Any) -> Any:
    """Return a deep copy of the dicts and lists in *value*, to detect later changes."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
