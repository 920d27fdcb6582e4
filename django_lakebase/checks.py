"""
System checks: what the settings alone show wrong, before anything connects.

They run without a database (no ``databases`` tag): a wrong key should be known at
``runserver``, not at the first query.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg.pq
from django.core.checks import CheckMessage, Warning  # noqa: A004 - Django's name.
from django.db import connections

from .base import LakebaseMixin
from .config import OWN_OPTIONS
from .errors import SettingsError

# The keys that Django and psycopg take themselves; the rest is libpq's.
DJANGO_OPTIONS = (
    "assume_role",
    "isolation_level",
    "pool",
    "server_side_binding",
    "context",
    "cursor_factory",
    "prepare_threshold",
    "row_factory",
)


def check_settings(*, app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """
    Report what will be an ImproperlyConfigured at the first connection.

    A warning: an image is built without the variables that its containers get.
    """
    return [error for _, wrapper in _wrappers() for error in _settings(wrapper)]


def check_options(*, app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report keys of OPTIONS that nobody knows, with the nearest that is known."""
    known = _known_options()
    return [
        _unknown_option(alias, key, known)
        for alias, wrapper in _wrappers()
        for key in wrapper.settings_dict.get("OPTIONS") or {}
        if key not in known
    ]


def _wrappers() -> Iterator[tuple[str, LakebaseMixin]]:
    for alias in connections:
        wrapper = connections[alias]
        if isinstance(wrapper, LakebaseMixin):
            yield alias, wrapper


def _settings(wrapper: LakebaseMixin) -> Iterator[CheckMessage]:
    try:
        wrapper.get_target()
    except SettingsError as exc:
        yield Warning(str(exc), id="lakebase.W002")


def _known_options() -> list[str]:
    libpq = [option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()]
    return [*OWN_OPTIONS, *DJANGO_OPTIONS, *libpq]


def _unknown_option(alias: str, key: str, known: Sequence[str]) -> CheckMessage:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f'Did you mean "{near[0]}"?' if near else "Remove it."
    return Warning(
        f'DATABASES["{alias}"]: OPTIONS holds "{key}", which neither Django, libpq '
        "nor django_lakebase knows.",
        hint=hint,
        id="lakebase.W001",
    )
