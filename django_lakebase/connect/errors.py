"""Conversion of errors caught while connecting into the errors that callers get."""

from collections.abc import Callable
from typing import TypeVar

from django_lakebase.auth.credentials import CredentialError
from django_lakebase.auth.singleflight import CallError
from django_lakebase.config.target import Target
from django_lakebase.exceptions import (
    ExplainedError,
    LakebaseError,
    SettingsError,
    build_error,
)
from django_lakebase.failures.classify import (
    KnownFailure,
    chain,
    classify,
    strip_tracebacks,
)
from django_lakebase.failures.failure import Failure, Source

T = TypeVar("T")


def connect_error(
    target: Target, cause: BaseException, failure: Failure, **facts: object
) -> ExplainedError:
    """
    Return the error to raise for *failure*, with *cause* as its ``__cause__``.

    Removes the tracebacks of *cause*, because their frames may hold a token. *facts*
    add to or replace the facts of *target*.
    """
    known = next(
        (link for link in chain(cause) if isinstance(link, KnownFailure)), None
    )
    if known is not None:
        facts = {**facts, "seen": known.seen, **known.facts}
    is_static = failure.source is Source.SETTINGS
    error_class: type[ExplainedError] = SettingsError if is_static else LakebaseError
    error = build_error(error_class, failure, target.label, target.facts(**facts))
    error.__cause__ = strip_tracebacks(cause)
    return error


def call_workspace(target: Target, call: Callable[[], T]) -> T:
    """Return the result of *call*; raises LakebaseError for the workspace's errors."""
    try:
        return call()
    except (CredentialError, CallError) as exc:
        cause = exc.__cause__ or exc
    raise connect_error(target, cause, classify(cause, Source.WORKSPACE), seen=cause)
