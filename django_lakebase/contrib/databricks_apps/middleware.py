"""
The middleware that signs in the user whom the platform's proxy names.

How it works. Django's `RemoteUserMiddleware` compares the user of the session with the
one in ``request.META``, and signs in, switches or logs out. This subclass only decides
which name is in ``request.META``: a name from the proxy's headers on Databricks Apps,
the development user elsewhere, or none. Afterwards it updates the user's rights.
"""

import logging
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import auth
from django.contrib.auth.middleware import RemoteUserMiddleware
from django.http import HttpRequest

from . import is_databricks_app
from .conf import get_apps_settings

# The first header that is present names the user. X-Forwarded-Preferred-Username is
# not one of them: it is a display name, which users can choose.
IDENTITY_HEADERS = ("HTTP_X_FORWARDED_EMAIL", "HTTP_X_FORWARDED_USER")

logger = logging.getLogger("django_lakebase.contrib.databricks_apps")


class ForwardedUserMiddleware(RemoteUserMiddleware):
    """Signs in the user that the proxy's headers name; without them, logs out."""

    # A key of META that only this class sets.
    header = "DATABRICKS_APPS_USER"

    def __init__(self, get_response: Any) -> None:
        super().__init__(get_response)
        self.apps_settings = get_apps_settings()

    def process_request(self, request: HttpRequest) -> None:
        """Sign in, switch or log out the user of *request*."""
        previous = getattr(request, "user", None)
        identity = self._set_identity(request, previous)
        super().process_request(request)
        if identity and request.user.is_authenticated:
            _reject_form_of(previous, request, request.user)
            self.update_rights(request.user, identity)

    async def aprocess_request(self, request: HttpRequest) -> None:
        """See process_request()."""
        previous = user = await request.auser() if hasattr(request, "auser") else None
        identity = self._set_identity(request, user)
        before = getattr(request, "user", None)
        await super().aprocess_request(request)
        if request.user is not before:
            user = request.user
            _set_auser(request, user)
        if identity and user and user.is_authenticated:
            _reject_form_of(previous, request, user)
            await sync_to_async(self.update_rights)(user, identity)

    def get_identity(self, request: HttpRequest) -> str:
        """Return the name of the user in lower case, or "" if there is none."""
        if is_databricks_app():
            values = (str(request.META.get(name, "")) for name in IDENTITY_HEADERS)
            identity = next((value.strip() for value in values if value.strip()), "")
        else:
            identity = self.apps_settings.development_user if settings.DEBUG else ""
        # Servers join a repeated header with commas: the first part may be forged.
        is_single = not any(character in identity for character in " ,")
        if identity.isascii() and identity.isprintable() and is_single:
            return identity.lower()
        logger.warning(
            "A user was not signed in: their name contains a space, a comma, or a "
            "non-ASCII character."
        )
        return ""

    def update_rights(self, user: Any, identity: str) -> None:
        """Set the rights of *user* to those in DATABRICKS_APPS, if it decides them."""
        rules = self.apps_settings
        if not rules.decides_rights:
            return
        is_superuser = identity in rules.superusers
        is_staff = is_superuser or identity in rules.staff or self._is_in_group(user)
        fields = {field.name for field in user._meta.concrete_fields}
        changed = {
            name: value
            for name, value in (("is_superuser", is_superuser), ("is_staff", is_staff))
            if name in fields and getattr(user, name) != value
        }
        if changed:
            for name, value in changed.items():
                setattr(user, name, value)
                logger.info(
                    "Set %s of the user with id %s to %s.", name, user.pk, value
                )
            user.save(update_fields=list(changed))

    def _is_in_group(self, user: Any) -> bool:
        group = self.apps_settings.staff_group
        if not group or not hasattr(user, "groups"):  # As with AbstractBaseUser.
            return False
        return bool(user.groups.filter(name=group).exists())

    def _set_identity(self, request: HttpRequest, user: Any) -> str:
        """Write the identity to META, where Django's class reads it, and return it."""
        username = identity = self.get_identity(request)
        current = user.get_username() if user and user.is_authenticated else ""
        if current.isascii() and current.lower() == identity:
            username = current
        # Before Django 6.1, the class adds a prefix in async mode (Django #36300).
        for key in (self.header, f"HTTP_{self.header}"):
            if identity:
                request.META[key] = username
            else:
                request.META.pop(key, None)
        return identity

    # Django's versions keep a session of another backend, for example after a login
    # with a password. Behind the proxy, the user would not be the one of the headers.

    def _remove_invalid_user(self, request: HttpRequest) -> None:
        if self._is_authoritative(request):
            auth.logout(request)
        else:
            super()._remove_invalid_user(request)  # type: ignore[misc]

    async def _aremove_invalid_user(self, request: HttpRequest) -> None:
        if self._is_authoritative(request):
            await auth.alogout(request)
        else:
            await super()._aremove_invalid_user(request)  # type: ignore[misc]

    def _is_authoritative(self, request: HttpRequest) -> bool:
        return is_databricks_app() or self.header in request.META


def _reject_form_of(previous: Any, request: HttpRequest, user: Any) -> None:
    """
    Let the CSRF check of *request* fail if *user* has replaced the user *previous*.

    The new CSRF token applies from the next request on. This one may be a form that was
    filled in by *previous*.
    """
    if previous and previous.is_authenticated and previous.pk != user.pk:
        request.COOKIES.pop(settings.CSRF_COOKIE_NAME, None)


def _set_auser(request: HttpRequest, user: Any) -> None:
    """
    Make auser() return *user*.

    Before Django 6.0, alogin() and alogout() replace only ``request.user``.
    """

    async def auser() -> Any:
        return user

    request.auser = auser
