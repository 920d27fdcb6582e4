"""The exceptions that a project can catch: LakebaseError and SettingsError."""

from collections.abc import Mapping
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from .failures.classify import failures_by_id
from .failures.failure import Failure
from .failures.render import original_message, summary_and_hint


class ExplainedError(Exception):
    """
    An error with a row in docs/reference/errors.md: the base of the concrete classes.

    *failure_id* is the id of the row, *summary* says what happened, with the original
    message quoted, and *hint* what to do about it.
    """

    failure_id = ""
    # Not named *message* or *detail*: error trackers show those instead of the text.
    summary = ""
    hint = ""

    @property
    def failure(self) -> Failure:
        """The row of the failure table."""
        return failures_by_id()[self.failure_id]


class SettingsError(ExplainedError, ImproperlyConfigured):
    """The settings, or the environment variables that complete them, are invalid."""


class LakebaseError(ExplainedError, OperationalError):
    """
    A connection could not be opened; the text says why and what to do.

    ``__cause__`` is the original error, without its traceback.
    """


E = TypeVar("E", bound=ExplainedError)


def build_error(
    kind: type[E], failure: Failure, label: str, facts: Mapping[str, object]
) -> E:
    """
    Return an error of *kind* for *failure* of the alias named by *label*.

    *facts* fill the texts of *failure*; ``facts["seen"]`` is the original error.
    """
    summary, hint = summary_and_hint(failure, facts)
    seen = original_message(facts.get("seen"))
    tail = f'\nSeen: "{seen}"' if seen else ""
    error = kind(f"{label}: {summary} {hint}{tail}")
    error.failure_id, error.hint = failure.id, hint
    error.summary = summary + tail.replace("\n", " ")
    return error
