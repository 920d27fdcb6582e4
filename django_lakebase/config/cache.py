"""
A cache for one Target, which is resolved again if settings or environment change.

Django asks for a connection's pool several times per request, and the pool depends on
the Target. Resolving the Target takes longer than the request's query; comparing the
settings and the environment with copies takes about a microsecond.
"""

import os
from collections.abc import Mapping
from typing import Any

from .fill import fill_settings
from .resolve import resolve_target
from .target import Target

# The private attribute in which CPython keeps the environment as bytes. Comparing 60
# variables there takes half a microsecond. The public ways are slower: looking up only
# the 11 variables of a typical environment takes two microseconds, and copying all 60
# with dict(os.environ) takes 30.
RAW_ENVIRONMENT: Mapping[bytes, bytes] | None = getattr(os.environ, "_data", None)


class TargetCache:
    """The Target of one connection, and copies of what it was resolved from."""

    def __init__(self) -> None:
        self._entry: tuple[Target, dict[str, Any], Mapping[Any, Any]] | None = None

    def get(self, settings_dict: dict[str, Any], alias: str) -> Target:
        """
        Fill *settings_dict* and return its Target in the current environment.

        Returns the same object as long as neither has changed. Raises SettingsError.
        """
        if self._entry is not None:
            target, settings, environment = self._entry
            if (
                settings == settings_dict
                # A value filled from the environment equals the same value set by the
                # project. Only of the user, the Target contains where it comes from.
                and type(settings["USER"]) is type(settings_dict["USER"])
                and environment == (RAW_ENVIRONMENT or dict(os.environ))
                and target.alias == alias
            ):
                return target
        fill_settings(settings_dict, alias)
        target = resolve_target(settings_dict, alias)
        # A single assignment, because threads may share a connection.
        self._entry = target, _copy(settings_dict), dict(RAW_ENVIRONMENT or os.environ)
        return target


def _copy(value: Any) -> Any:
    """Return a deep copy of the dicts and lists in *value*, to detect later changes."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
