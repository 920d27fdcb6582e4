"""The authentication backend for users whom the platform's proxy has signed in."""

import logging
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import RemoteUserBackend
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, router, transaction
from django.http import HttpRequest

from . import is_databricks_app

NAME_HEADER = "HTTP_X_FORWARDED_PREFERRED_USERNAME"

logger = logging.getLogger("django_lakebase.contrib.databricks_apps")


class ForwardedUserBackend(RemoteUserBackend):
    """
    Gets or creates the user with the name that `ForwardedUserMiddleware` has read.

    The name is in lower case. That of an existing user may differ in case.
    """

    def authenticate(  # type: ignore[override]
        self, request: HttpRequest | None, remote_user: str
    ) -> Any:
        """Return the user, or None if they are inactive or may not be created."""
        username = _find_spelling(remote_user)
        model: Any = get_user_model()
        max_length = model._meta.get_field(model.USERNAME_FIELD).max_length
        if max_length and len(self.clean_username(username)) > max_length:
            logger.warning(
                "A user was not signed in: their name is longer than the %s characters "
                "that the user model allows.",
                max_length,
            )
            return None
        try:
            # Or a user whose e-mail address is taken would stay, half created.
            with transaction.atomic(using=router.db_for_write(model)):
                return super().authenticate(request, username)
        except IntegrityError as exc:
            logger.warning(
                "A user was not signed in: the database rejected the new user (%s).",
                type(exc.__cause__).__name__,
            )
            return None

    async def aauthenticate(  # type: ignore[override]
        self, request: HttpRequest | None, remote_user: str
    ) -> Any:
        """See authenticate()."""
        return await sync_to_async(self.authenticate)(request, remote_user)

    def configure_user(
        self, request: HttpRequest | None, user: Any, created: bool = True
    ) -> Any:
        """Give a created user their e-mail address and name, but no password."""
        if created:
            user.set_unusable_password()
            _set_email(user)
            if request is not None and is_databricks_app():
                _set_name(user, request.META.get(NAME_HEADER, ""))
            user.save()
        return user


def _find_spelling(username: str) -> str:
    """
    Return the name of the user whose name differs from *username* only in case.

    If there is no such user, or more than one, return *username*.
    """
    model: Any = get_user_model()
    found = model._default_manager.filter(
        **{f"{model.USERNAME_FIELD}__iexact": username}
    ).values_list(model.USERNAME_FIELD, flat=True)
    # The server's UPPER() turns some other letters, such as the Turkish dotless i, into
    # ASCII letters (CVE-2019-19844).
    names = [str(name) for name in found if str(name).isascii()]
    return names[0] if len(names) == 1 else username


def _set_email(user: Any) -> None:
    field, username = user.get_email_field_name(), user.get_username()
    if not _has_field(user, field):
        return
    try:
        validate_email(username)
    except ValidationError:
        return  # The id of a service principal, for example.
    setattr(user, field, username)


def _set_name(user: Any, header: str) -> None:
    """Set the first and the last name from *header*, decoded as Latin-1."""
    try:
        name = header.encode("latin-1").decode()
    except UnicodeError:
        name = header
    if "@" in name:
        return  # The platform sends the e-mail address for users without a name.
    parts = name.strip().partition(" ")
    for field, text in (("first_name", parts[0]), ("last_name", parts[2].strip())):
        if _has_field(user, field):
            setattr(user, field, text[: user._meta.get_field(field).max_length])


def _has_field(user: Any, name: str) -> bool:
    return any(field.name == name for field in user._meta.concrete_fields)
