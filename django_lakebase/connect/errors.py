"""Conversion of errors caught while connecting into the errors that callers get."""

from collections.abc import Callable
from typing import TypeVar

from django_lakebase.auth.registry import endpoint_of
from django_lakebase.auth.singleflight import CallError
from django_lakebase.config.target import USER_VARIABLES, Target, endpoint_option
from django_lakebase.exceptions import ExplainedError, LakebaseError, SettingsError
from django_lakebase.failures.classify import (
    KnownFailure,
    chain,
    classify,
    strip_tracebacks,
)
from django_lakebase.failures.failure import Failure, Source
from django_lakebase.failures.render import build_error

T = TypeVar("T")


def facts_of(target: Target, **more: object) -> dict[str, object]:
    """Return the values for the placeholders in the texts of failures."""
    login = target.login
    is_variable = target.user_setting in USER_VARIABLES
    return {
        "endpoint": endpoint_of(target) or target.host,
        "endpoint_setting": target.endpoint_setting or target.host_setting,
        # The setting or variable in which the user can set the endpoint.
        "endpoint_option": endpoint_option(target.host_setting),
        "host": target.host or f"the host of {target.endpoint}",
        "host_setting": target.host_setting,
        "port": target.port,
        "user": target.user or "the login's identity",
        "user_setting": target.user_setting,
        # What to correct if the user is not the login's identity.
        "identity_setting": USER_VARIABLES[0] if is_variable else "USER",
        "password_setting": target.password_setting,
        "database": target.database or "postgres",
        "budget": f"{target.connect_budget:g}",
        "workspace": login.name if login else "",
        "workspace_url": (login and login.url) or "$DATABRICKS_HOST",
        **more,
    }


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
    error = build_error(error_class, failure, target.label, facts_of(target, **facts))
    error.__cause__ = strip_tracebacks(cause)
    return error


def call_workspace(target: Target, call: Callable[[], T]) -> T:
    """Return the result of *call*; raises LakebaseError for the workspace's errors."""
    try:
        return call()
    except CallError as exc:
        cause = exc.__cause__ or exc
    raise connect_error(target, cause, classify(cause, Source.WORKSPACE), seen=cause)
