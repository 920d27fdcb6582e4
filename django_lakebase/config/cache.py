"""
A cache for one Target, which is resolved again if settings or environment change.

Django asks for a connection's pool several times per request, and the pool depends on
the Target. Resolving the Target each time took longer than the request's query;
comparing the settings and the environment with a copy takes two microseconds.
"""

import os
from collections.abc import Mapping
from typing import Any

from .resolve import resolve_target
from .target import Target

# The private attribute of os.environ in which CPython keeps the environment as bytes.
# Comparing the bytes takes a twentieth of the time of comparing the decoded values,
# which are compared if the attribute is missing.
RAW_ENVIRONMENT = "_data"


class TargetCache:
    """The Target of one connection, and copies of what it was resolved from."""

    def __init__(self) -> None:
        self._entry: _Entry | None = None

    def get(self, settings_dict: dict[str, Any], alias: str) -> Target:
        """
        Return the Target of *settings_dict* and the environment.

        Returns the same object as long as neither has changed. Raises SettingsError.
        """
        entry = self._entry
        if entry is not None and entry.is_current(settings_dict, alias):
            return entry.target
        target = resolve_target(settings_dict, alias)
        # A single assignment, because threads may share a connection.
        self._entry = _Entry(settings_dict, alias, target)
        return target


class _Entry:
    """A Target and copies of what it was resolved from; its repr shows neither."""

    __slots__ = ("_alias", "_environment", "_settings", "_types", "target")

    def __init__(
        self, settings_dict: dict[str, Any], alias: str, target: Target
    ) -> None:
        self._settings, self._types = _copy(settings_dict), _types(settings_dict)
        self._environment, self._alias = dict(_environment()), alias
        self.target = target

    def is_current(self, settings_dict: dict[str, Any], alias: str) -> bool:
        """Return whether the settings and the environment are unchanged."""
        return (
            self._settings == settings_dict
            and self._types == _types(settings_dict)
            and self._environment == _environment()
            and self._alias == alias
        )


def _types(settings_dict: dict[str, Any]) -> tuple[type, ...]:
    # A value filled from the environment equals the same value set by the project; only
    # its type differs.
    return tuple(map(type, settings_dict.values()))


def _environment() -> Mapping[Any, Any]:
    """Return the environment in the form that is fastest to compare."""
    raw: Mapping[Any, Any] | None = getattr(os.environ, RAW_ENVIRONMENT, None)
    return dict(os.environ) if raw is None else raw


def _copy(value: Any) -> Any:
    """Return a deep copy of the dicts and lists in *value*, to detect later changes."""
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
