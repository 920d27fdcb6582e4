"""
Classification of exceptions by the failure table, and removal of secrets from them.

This module imports neither psycopg nor the SDK.
"""

import functools
import re
from collections.abc import Iterator

from .failure import Failure, Source


class KnownFailure(Exception):  # noqa: N818 - internal: always converted to an Error.
    """
    A failure that the engine detected itself, with the id of its row.

    *seen* is the original message; *facts* fill the texts of the row.
    """

    def __init__(self, failure_id: str, seen: str = "", **facts: object) -> None:
        super().__init__(seen or failure_id)
        self.failure_id = failure_id
        self.seen = seen
        self.facts = facts


@functools.cache
def failures_by_id() -> dict[str, Failure]:
    """Return the failure table, by id."""
    # Imported at first use, so that a process without failures does not load the table.
    from .catalog import FAILURES

    return {failure.id: failure for failure in FAILURES}


@functools.cache
def _patterns(source: Source) -> tuple[tuple[re.Pattern[str], Failure], ...]:
    return tuple(
        (re.compile(failure.pattern, re.IGNORECASE), failure)
        for failure in failures_by_id().values()
        if failure.source is source and failure.pattern
    )


# The formats of JSON web tokens, personal access tokens and OAuth secrets.
_SECRETS = r"eyJ[\w-]{5,}(\.[\w-]*){1,2}|\b(dapi|dose|dkea)[\w-]{8,}"
# The SDK appends its configuration to its error messages.
_CONFIG_TAIL = r"(?s)\.? Config: .*"


def scrub(text: str) -> str:
    """Return *text* on one line, with everything that looks like a secret masked."""
    return " ".join(re.sub(_SECRETS, "***", re.sub(_CONFIG_TAIL, "", text)).split())


def chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield *exc*, its cause or context, and so on; at most eight exceptions."""
    for _ in range(8):
        if exc is None:
            return
        yield exc
        exc = exc.__cause__ or exc.__context__


def strip_tracebacks(exc: BaseException) -> BaseException:
    """
    Remove the tracebacks of *exc*, its causes and contexts, and return *exc*.

    The frames of the SDK hold client secrets, those of psycopg hold tokens.
    """
    done: set[int] = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in done:
            done.add(id(link))
            link.__traceback__ = None
            waiting += [link.__cause__, link.__context__]
    return exc


def retry_after(exc: BaseException | None) -> float:
    """Return the seconds of the service's Retry-After header in *exc*, or 0."""
    delays = [getattr(link, "retry_after_secs", None) for link in chain(exc)]
    return max((float(seconds) for seconds in delays if seconds), default=0.0)


def classify(exc: BaseException, source: Source, *, native: bool = False) -> Failure:
    """
    Return the row of the failure table for *exc*, which *source* reported.

    Also searches the causes of *exc*, because the SDK wraps network errors. *native* is
    True for a login with a password instead of a token.
    """
    links = list(chain(exc))
    for link in links:
        if isinstance(link, KnownFailure):
            return failures_by_id()[link.failure_id]
    texts = [str(link) for link in links]
    if source is Source.WORKSPACE:
        texts = [f"{type(link).__name__}: {link}" for link in links]
    for pattern, failure in _patterns(source):
        if failure.native not in (None, native):
            continue
        if any(pattern.search(text) for text in texts):
            return failure
    is_server = source is Source.SERVER
    return failures_by_id()["unexplained" if is_server else "workspace-unexplained"]
