"""The exceptions that a project can catch: LakebaseError and SettingsError."""

from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

if TYPE_CHECKING:
    from .failures.failure import Failure


class ExplainedError(Exception):
    """
    The base class of the errors that docs/reference/errors.md lists.

    *failure_id* is the id in that list, *failure* the row of the failure table.
    *summary* says what happened and quotes the original message, *hint* says what to
    do.
    """

    failure: "Failure"
    failure_id = ""
    # Not named *message* or *detail*: error trackers show those instead of the text.
    summary = ""
    hint = ""


class SettingsError(ExplainedError, ImproperlyConfigured):
    """The settings, or the environment variables that complete them, are invalid."""


class LakebaseError(ExplainedError, OperationalError):
    """
    A connection could not be opened; the text says why and what to do.

    ``__cause__`` is the original error, without its traceback.
    """
