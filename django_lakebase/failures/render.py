"""Rendering: a row of the failure table and the facts of one occurrence, as text."""

from collections.abc import Mapping

from .classify import scrub
from .failure import Failure


class _Facts(dict[str, object]):
    """Facts for a message; an unknown fact is shown as its name in angle brackets."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def summary_and_hint(failure: Failure, facts: Mapping[str, object]) -> tuple[str, str]:
    """Return the summary and the hint of *failure*, filled with *facts*."""
    known = _Facts(facts)
    user = str(known["user"])
    known["user_in_sql"] = user.replace("'", "''")
    # The same names, escaped for a double-quoted SQL identifier.
    for name in ("user", "database", "name", "template"):
        known[f"{name}_ident"] = str(known[name]).replace('"', '""')
    known.setdefault("user_type", "USER" if "@" in user else "SERVICE_PRINCIPAL")
    return failure.summary.format_map(known), failure.hint.format_map(known)


def original_message(seen: object) -> str:
    """
    Return the text of the original error *seen*, on one line and without secrets.

    The SDK retries until it times out; its TimeoutError has the reason as its cause,
    so the cause is appended.
    """
    text = str(seen or "")
    if isinstance(seen, TimeoutError) and seen.__cause__ is not None:
        cause = seen.__cause__
        text = f"{text}: {type(cause).__name__}: {cause}"
    return scrub(text)
