"""
What a failure means: *explain* finds its row in the table, *message* says it.

This file imports no driver and no SDK.
"""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured

from .kinds import Failure, Source


class Known(Exception):  # noqa: N818 - never shown: explained before it reaches a user.
    """A failure that we found ourselves, by its id in the table."""

    def __init__(self, failure_id: str, seen: str = "", **facts: object) -> None:
        super().__init__(seen or failure_id)
        self.failure_id = failure_id
        self.seen = seen
        self.facts = facts


@functools.cache
def table() -> dict[str, Failure]:
    """Return the table of failures, by id."""
    # Loaded when first needed: a process that meets no failure need not pay.
    from .failures import FAILURES

    return {failure.id: failure for failure in FAILURES}


@functools.cache
def _rows(source: Source) -> tuple[tuple[re.Pattern[str], Failure], ...]:
    return tuple(
        (re.compile(failure.pattern, re.IGNORECASE), failure)
        for failure in table().values()
        if failure.source is source and failure.pattern
    )


# JSON web tokens, personal access tokens and OAuth secrets by their looks.
_HIDDEN = r"eyJ[\w-]{5,}(\.[\w-]*){1,2}|\b(dapi|dose|dkea)[\w-]{8,}"
# The SDK repeats its whole configuration behind its messages.
_CONFIG_TAIL = r"(?s)\.? Config: .*"


def scrub(text: str) -> str:
    """Return *text* on one line, without anything that looks like a secret."""
    return " ".join(re.sub(_HIDDEN, "***", re.sub(_CONFIG_TAIL, "", text)).split())


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield *exc* and the causes behind it, at most eight."""
    for _ in range(8):
        if exc is None:
            return
        yield exc
        exc = exc.__cause__ or exc.__context__


def retry_after(exc: BaseException | None) -> float:
    """Return the seconds after which the service wants to be asked again, or 0."""
    asked = [getattr(link, "retry_after_secs", None) for link in chain(exc)]
    return max((float(seconds) for seconds in asked if seconds), default=0.0)


def explain(exc: BaseException, source: Source, *, native: bool = False) -> Failure:
    """
    Return the row of the table for *exc*, seen by *source*.

    The causes of *exc* are looked at too, innermost last: the SDK wraps what the
    network said. *native* means a login with a password, which is not a token.
    """
    seen = list(chain(exc))
    for link in seen:
        if isinstance(link, Known):
            return table()[link.failure_id]
    texts = [str(link) for link in seen]
    if source is Source.WORKSPACE:
        texts = [f"{type(link).__name__}: {link}" for link in seen]
    for pattern, failure in _rows(source):
        if failure.native not in (None, native):
            continue
        if any(pattern.search(text) for text in texts):
            return failure
    unexplained = source is Source.SERVER
    return table()["unexplained" if unexplained else "workspace-unexplained"]


class _Facts(dict[str, object]):
    """Facts for a message; one that nobody knows is shown by its name."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def words(failure: Failure, facts: Mapping[str, object]) -> tuple[str, str]:
    """Return what *failure* means and its mend, filled with *facts*."""
    known = _Facts(facts)
    user = str(known["user"])
    known["user_in_sql"] = user.replace("'", "''")
    # The same names between the double quotes of SQL.
    for name in ("user", "database", "name", "template"):
        known[f"{name}_ident"] = str(known[name]).replace('"', '""')
    known.setdefault("user_type", "USER" if "@" in user else "SERVICE_PRINCIPAL")
    return failure.means.format_map(known), failure.mend.format_map(known)


def _said(seen: object) -> str:
    """Return the text of *seen*, and why the SDK tried until its time ran out."""
    if isinstance(seen, TimeoutError) and seen.__cause__ is not None:
        return f"{seen}: {type(seen.__cause__).__name__}: {seen.__cause__}"
    return str(seen)


class Explained(Exception):  # noqa: N818 - the concrete classes say Error.
    """An error with its row of docs/errors.md: what it means and how it is mended."""

    failure_id = ""
    # Neither *message* nor *detail*: error trackers show these in the text's place.
    finding = ""
    mend = ""

    @property
    def failure(self) -> Failure:
        """The row of the table of failures."""
        return table()[self.failure_id]


class SettingsError(Explained, ImproperlyConfigured):
    """The settings and the environment alone are wrong."""


E = TypeVar("E", bound=Explained)


def explained(
    kind: type[E], failure: Failure, label: str, facts: Mapping[str, object]
) -> E:
    """Return an error of *kind* that tells the user about *failure* of *label*."""
    detail, mend = words(failure, facts)
    seen = scrub(_said(facts.get("seen") or ""))
    tail = f'\nSeen: "{seen}"' if seen else ""
    error = kind(f"{label}: {detail} {mend}{tail}")
    error.failure_id, error.mend = failure.id, mend
    error.finding = detail + tail.replace("\n", " ")
    return error
