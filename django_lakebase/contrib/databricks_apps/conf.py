"""The setting DATABRICKS_APPS."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

KEYS = ("SUPERUSERS", "STAFF", "STAFF_GROUP", "DEVELOPMENT_USER")


@dataclass(frozen=True, slots=True, kw_only=True)
class AppsSettings:
    """
    The parsed setting; names of users are in lower case.

    If *decides_rights* is false, the setting determines no rights, and those in the
    database do not change.
    """

    superusers: frozenset[str]
    staff: frozenset[str]
    staff_group: str
    development_user: str
    decides_rights: bool


def get_apps_settings() -> AppsSettings:
    """Return the parsed setting; raise `ImproperlyConfigured` if it is invalid."""
    values = getattr(settings, "DATABRICKS_APPS", {})
    if not isinstance(values, Mapping):
        raise ImproperlyConfigured(
            f"DATABRICKS_APPS is a {type(values).__name__}, but must be a dict."
        )
    for key in values:
        if key not in KEYS:
            raise ImproperlyConfigured(
                f"DATABRICKS_APPS has the unknown key {key!r}. The keys are "
                f"{', '.join(KEYS)}."
            )
    return AppsSettings(
        superusers=_parse_users(values, "SUPERUSERS"),
        staff=_parse_users(values, "STAFF"),
        staff_group=_parse_text(values, "STAFF_GROUP"),
        development_user=_parse_text(values, "DEVELOPMENT_USER").lower(),
        # An empty list counts: it means that there are no such users.
        decides_rights=values.get("SUPERUSERS") is not None
        or values.get("STAFF") is not None
        or bool(values.get("STAFF_GROUP")),
    )


def _parse_users(values: Mapping[str, Any], key: str) -> frozenset[str]:
    """Return the users of a list, or of a string that separates them with commas."""
    users = values.get(key)
    if users is None:
        return frozenset()
    entries = users.split(",") if isinstance(users, str) else users
    is_list = isinstance(entries, Iterable) and not isinstance(entries, Mapping)
    if not is_list or not all(isinstance(entry, str) for entry in entries):
        raise ImproperlyConfigured(
            f'DATABRICKS_APPS["{key}"] is {users!r}, but must be a list of e-mail '
            "addresses, or a string that separates them with commas."
        )
    return frozenset(entry.strip().lower() for entry in entries if entry.strip())


def _parse_text(values: Mapping[str, Any], key: str) -> str:
    text = values.get(key)
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ImproperlyConfigured(
            f'DATABRICKS_APPS["{key}"] is {text!r}, but must be a string.'
        )
    return text.strip()
