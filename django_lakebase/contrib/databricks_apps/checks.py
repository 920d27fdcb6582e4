"""
System checks: report settings that prevent the sign-in of the proxy's users.

docs/reference/databricks-apps.md has a section for each id.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.contrib.auth.backends import RemoteUserBackend
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.checks import (
    CheckMessage,
    Error,
    Warning,  # noqa: A004 - Django's name.
)
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import PLATFORM_VARIABLES, is_databricks_app
from .backends import ForwardedUserBackend
from .conf import get_apps_settings
from .middleware import ForwardedUserMiddleware

# The page that each hint names; it has an anchor for each id.
CHECKS_PAGE = "docs/reference/databricks-apps.md"
PACKAGE = "django_lakebase.contrib.databricks_apps"


def check_sign_in(*, app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check the settings of the sign-in."""
    messages = [message for check in CHECKS for message in check()]
    for message in messages:
        anchor = str(message.id).lower().replace(".", "-").replace("_", "-")
        message.hint = f"{message.hint} See {CHECKS_PAGE}#{anchor}."
    return messages


def invalid_settings() -> Iterator[CheckMessage]:
    """Yield E001 if the middleware would reject DATABRICKS_APPS."""
    try:
        get_apps_settings()
    except ImproperlyConfigured as exc:
        yield Error(str(exc), hint="Correct the setting.", id="databricks_apps.E001")


def middleware_order() -> Iterator[CheckMessage]:
    """Yield E002 if the middleware is missing or cannot see the session's user."""
    classes = list(_import_classes(settings.MIDDLEWARE))
    own = _find_subclass(classes, ForwardedUserMiddleware)
    django = _find_subclass(classes, AuthenticationMiddleware)
    if own is None or django is None or own < django:
        yield Error(
            "No user is signed in: MIDDLEWARE does not contain Django's "
            f'AuthenticationMiddleware, followed by "{PACKAGE}.middleware.'
            'ForwardedUserMiddleware".',
            hint="Add it directly after AuthenticationMiddleware.",
            id="databricks_apps.E002",
        )


def missing_backend() -> Iterator[CheckMessage]:
    """Yield E003 if another backend, or none, would authenticate the proxy's users."""
    classes = list(_import_classes(settings.AUTHENTICATION_BACKENDS))
    first = _find_subclass(classes, RemoteUserBackend)
    if first is None or not issubclass(classes[first], ForwardedUserBackend):
        yield Error(
            f'AUTHENTICATION_BACKENDS does not contain "{PACKAGE}.backends.'
            'ForwardedUserBackend", or contains another RemoteUserBackend before it.',
            hint="Add it as the first backend.",
            id="databricks_apps.E003",
        )


def ignored_headers() -> Iterator[CheckMessage]:
    """Yield W001 if the headers are ignored and nothing replaces them."""
    missing = [name for name in PLATFORM_VARIABLES if not os.environ.get(name)]
    if missing and not (settings.DEBUG and _development_user()):
        yield Warning(
            "The headers of the proxy are ignored, and no user is signed in: "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, "
            "so this is not a Databricks App.",
            hint='For development, set DEBUG and DATABRICKS_APPS["DEVELOPMENT_USER"]. '
            "Silence this check (SILENCED_SYSTEM_CHECKS) where no user signs in, for "
            "example in tests.",
            id="databricks_apps.W001",
        )


def ignored_development_user() -> Iterator[CheckMessage]:
    """Yield W002 if a development user is set, but DEBUG is not."""
    if _development_user() and not settings.DEBUG and not is_databricks_app():
        yield Warning(
            'DATABRICKS_APPS["DEVELOPMENT_USER"] is set, but ignored, because DEBUG is '
            "not True.",
            hint="On your own machine, set DEBUG. Elsewhere, remove the setting.",
            id="databricks_apps.W002",
        )


CHECKS = (
    invalid_settings,
    middleware_order,
    missing_backend,
    ignored_headers,
    ignored_development_user,
)


def _development_user() -> str:
    try:
        return get_apps_settings().development_user
    except ImproperlyConfigured:
        return ""


def _import_classes(paths: Iterable[str]) -> Iterator[Any]:
    """Yield the object at each path; None for those that Django itself will report."""
    for path in paths:
        try:
            yield import_string(path)
        except ImportError:
            yield None


def _find_subclass(classes: list[Any], wanted: type) -> int | None:
    """Return the position of the first subclass; middleware may also be a function."""
    for position, found in enumerate(classes):
        if isinstance(found, type) and issubclass(found, wanted):
            return position
    return None
