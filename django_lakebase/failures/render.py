"""Rendering of failures: a row of the table and the facts of an occurrence, as text."""

import re
from collections.abc import Mapping
from typing import TypeVar

from django_lakebase.exceptions import ExplainedError

from .classify import scrub
from .failure import Failure

E = TypeVar("E", bound=ExplainedError)

# Options of lakebase_role for the identity that a role is for.
OPTIONS = {
    "USER": "--user",
    "GROUP": "--group",
    "SERVICE_PRINCIPAL": "--service-principal",
}
APPLICATION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class _Facts(dict[str, object]):
    """Facts for a message; an unknown fact is shown as its name in angle brackets."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def summary_and_hint(failure: Failure, facts: Mapping[str, object]) -> tuple[str, str]:
    """Return the summary and the hint of *failure*, with *facts* filled in."""
    known = _Facts(facts)
    user = str(known["user"])
    known["user_in_sql"] = user.replace("'", "''")
    # The names again, escaped for a double-quoted SQL identifier.
    for name in ("user", "database", "name", "template"):
        known[f"{name}_ident"] = str(known[name]).replace('"', '""')
    known.setdefault("membership_options", "")
    known.setdefault("user_type", "USER" if "@" in user else "SERVICE_PRINCIPAL")
    known["user_option"] = OPTIONS[str(known["user_type"])]
    if known["user_type"] == "SERVICE_PRINCIPAL" and not APPLICATION_ID.fullmatch(user):
        known["user_option"] = OPTIONS["GROUP"]
    return failure.summary.format_map(known), failure.hint.format_map(known)


def original_message(seen: object) -> str:
    """
    Return the text of the original error *seen*, on one line and without secrets.

    If *seen* is a TimeoutError, appends its cause: the SDK retries until it times out,
    and the cause is the reason.
    """
    text = str(seen or "")
    if isinstance(seen, TimeoutError) and seen.__cause__ is not None:
        cause = seen.__cause__
        text = f"{text}: {type(cause).__name__}: {cause}"
    return scrub(text)


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
    error.failure, error.failure_id, error.hint = failure, failure.id, hint
    error.summary = summary + tail.replace("\n", " ")
    return error
