"""
The exceptions that a project can catch: LakebaseError and SettingsError.

`build_error` creates them from a row of the failure table.
"""

from collections.abc import Mapping
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError

from .failures.classify import failures_by_id
from .failures.failure import Failure
from .failures.render import original_message, summary_and_hint


class ExplainedError(Exception):
    """
    The base class of the errors that docs/reference/errors.md lists.

    *failure_id* is the id in that list. *summary* says what happened and quotes the
    original message, *hint* says what to do.
    """

    failure_id = ""
    # Not named *message* or *detail*: error trackers show those instead of the text.
    summary = ""
    hint = ""

    @property
    def failure(self) -> Failure:
        """The row of the failure table that the error was built from."""
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
    error_class: type[E], failure: Failure, label: str, facts: Mapping[str, object]
) -> E:
    """
    Return an error of *error_class* for *failure*; its text starts with *label*.

    *label* names the alias. *facts* are the values for the placeholders in the texts of
    *failure*; ``facts["seen"]`` is the original error or its text.
    """
    summary, hint = summary_and_hint(failure, facts)
    seen = original_message(facts.get("seen"))
    tail = f'\nSeen: "{seen}"' if seen else ""
    error = error_class(f"{label}: {summary} {hint}{tail}")
    error.failure_id, error.hint = failure.id, hint
    error.summary = summary + tail.replace("\n", " ")
    return error
