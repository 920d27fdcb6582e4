"""
The latest tokens, connections and requests of this process, for the timeline.

It is part of the demonstration, and an example of how to receive the engine's signals.
Projects do not need it to use the engine.
"""

import functools
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse

from django_lakebase import signals

# How many events of each lane are kept.
MAX_EVENTS = 2000


class Lane(StrEnum):
    """A horizontal strip of the timeline."""

    TOKENS = "Tokens"
    CONNECTIONS = "Connections"
    REQUESTS = "Requests"


class Kind(Enum):
    """What happened, with the lane and the shape that show it."""

    TOKEN_ISSUED = Lane.TOKENS, "bar"
    TOKEN_FAILED = Lane.TOKENS, "cross"
    CONNECTION_OPENED = Lane.CONNECTIONS, "dot"
    CONNECTION_RETRIED = Lane.CONNECTIONS, "triangle"
    CONNECTION_FAILED = Lane.CONNECTIONS, "cross"
    REQUEST = Lane.REQUESTS, "tick"
    REQUEST_FAILED = Lane.REQUESTS, "cross"

    def __init__(self, lane: Lane, shape: str) -> None:
        self.lane, self.shape = lane, shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """
    An event at a time (UTC).

    *until* is when a token expires; *failure_id* says why a login failed.
    """

    kind: Kind
    at: datetime
    until: datetime | None = None
    failure_id: str = ""


class Track(NamedTuple):
    """The recorded events of one lane; complete only since *since*."""

    events: Sequence[Event]
    since: datetime


class Recorder:
    """Keeps the latest events, and counts all of them."""

    def __init__(self) -> None:
        self._started_at = datetime.now(UTC)
        # Receivers run in the thread of the event.
        self._lock = threading.Lock()
        self._counts = Counter[Kind]()
        self._events = {lane: deque[Event](maxlen=MAX_EVENTS) for lane in Lane}

    def record(self, event: Event) -> None:
        """Add *event*; a full lane drops its oldest event."""
        with self._lock:
            self._counts[event.kind] += 1
            self._events[event.kind.lane].append(event)

    def get_count(self, kind: Kind) -> int:
        """Return how many events of *kind* were recorded, including dropped ones."""
        return self._counts[kind]

    def get_tracks(self) -> dict[Lane, Track]:
        """Return the recorded events, by lane."""
        with self._lock:
            kept = {lane: tuple(events) for lane, events in self._events.items()}
        return {
            lane: Track(
                events, self._started_at if len(events) < MAX_EVENTS else events[0].at
            )
            for lane, events in kept.items()
        }


recorder = Recorder()


def _record(kind: Kind, failure_id: str = "") -> None:
    recorder.record(Event(kind=kind, at=datetime.now(UTC), failure_id=failure_id))


@receiver(signals.credential_issued)
def _on_token(issued_at: datetime, expires_at: datetime, **kwargs: Any) -> None:
    recorder.record(Event(kind=Kind.TOKEN_ISSUED, at=issued_at, until=expires_at))


@receiver(signals.credential_failed)
def _on_token_failure(failure_id: str, **kwargs: Any) -> None:
    _record(Kind.TOKEN_FAILED, failure_id)


@receiver(signals.connection_opened)
def _on_connection(**kwargs: Any) -> None:
    _record(Kind.CONNECTION_OPENED)


@receiver(signals.connection_retried)
def _on_retry(failure_id: str, **kwargs: Any) -> None:
    _record(Kind.CONNECTION_RETRIED, failure_id)


@receiver(signals.connection_failed)
def _on_connection_failure(failure_id: str, **kwargs: Any) -> None:
    _record(Kind.CONNECTION_FAILED, failure_id)


View = Callable[[HttpRequest], HttpResponse]


def recorded(view: View) -> View:
    """Record each request for *view*, and each request that fails."""

    @functools.wraps(view)
    def wrapper(request: HttpRequest) -> HttpResponse:
        _record(Kind.REQUEST)
        try:
            return view(request)
        except Exception:
            _record(Kind.REQUEST_FAILED)
            raise

    return wrapper
