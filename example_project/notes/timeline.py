"""
The picture of the last minutes: the recorder's events as the shapes of an SVG.

It is part of the demonstration; projects do not need it to use the engine. The template
notes/timeline.html writes the shapes.

How it works. Horizontal lengths are shares of the width and vertical lengths are
pixels, so that text and marks have the same size on a phone and on a large screen.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count, pairwise
from typing import NamedTuple

from .recorder import Event, Kind, Lane, Track

# The picture shows the first of these periods (in seconds) that covers this many token
# lifetimes, so that rotations are visible with each lifetime.
LIFETIMES = 5.5
PERIODS = {
    60: "minute",
    120: "2 minutes",
    300: "5 minutes",
    600: "10 minutes",
    1800: "30 minutes",
    3600: "hour",
    7200: "2 hours",
    21600: "6 hours",
}
# The lifetime of a token, in seconds, that is assumed before the first token.
DEFAULT_LIFETIME = 20.0
# Seconds between the labels of the axis. A phone has room for six labels, but not at
# the edges (a share of the width).
STEPS = (5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
MAX_LABELS, EDGE = 6, 0.08
# The width of a mark, as a share. Shapes that would overlap are in separate rows.
MARK = 0.025
MIN_ROWS = {Lane.TOKENS: 2, Lane.CONNECTIONS: 2, Lane.REQUESTS: 1}
MAX_ROWS = 3
# Pixels.
TOP, LABEL, ROW, BAR, LINE, GAP, AXIS = 18, 20, 16, 12, 4, 8, 20


class Window(NamedTuple):
    """The time that the picture shows: *past* and *future* seconds around *now*."""

    now: datetime
    past: int
    future: int

    def x(self, moment: datetime) -> float:
        """Return the position of *moment*, as a share of the width."""
        seconds = (moment - self.now).total_seconds()
        return (self.past + seconds) / (self.past + self.future)

    def ticks(self) -> Iterator[tuple[str, str]]:
        """Yield the positions on the axis and their labels."""
        span = self.past + self.future
        step = next((step for step in STEPS if span / step <= MAX_LABELS), STEPS[-1])
        for number in count(math.ceil((self.now.timestamp() - self.past) / step)):
            moment = datetime.fromtimestamp(number * step, UTC)
            x = self.x(moment)
            if x > 1:
                return
            label = f"{moment:%H:%M}" if step % 60 == 0 else f"{moment:%H:%M:%S}"
            yield _percent(x), label if EDGE <= x <= 1 - EDGE else ""


class Placed(NamedTuple):
    """An event with its horizontal extent, as shares, and its centre, in pixels."""

    event: Event
    x: float
    end: float
    y: int


class Strip(NamedTuple):
    """A lane in the picture; *unknown* is the width of the time without records."""

    name: str
    top: int
    height: int
    unknown: str
    is_empty: bool


class Piece(NamedTuple):
    """A part of the life of a token, as a rectangle."""

    style: str
    x: str
    y: int
    width: str
    height: int


class Link(NamedTuple):
    """A vertical line from a token to the one that replaced it."""

    x: str
    y: int
    end: int


class Mark(NamedTuple):
    """Another event, as a shape around a point."""

    shape: str
    x: str
    y: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What the template writes."""

    period: str
    now: str
    height: int
    axis: int
    ticks: list[tuple[str, str]]
    strips: list[Strip]
    pieces: list[Piece]
    links: list[Link]
    marks: list[Mark]
    # Positions per mille: requests that are closer together are one line.
    requests: list[int]
    requests_top: int
    # By shape.
    counts: Mapping[str, int]
    latest_failure: str

    @property
    def is_incomplete(self) -> bool:
        """Whether a strip has a time without records."""
        return any(strip.unknown for strip in self.strips)


def draw(tracks: Mapping[Lane, Track], now: datetime) -> Picture:
    """Return the picture of *tracks* at *now*."""
    window = _window(tracks[Lane.TOKENS].events, now)
    strips, placed, top = [], [], TOP
    for lane, track in tracks.items():
        shown = list(_place(track.events, window, top + LABEL))
        rows = [(item.y - top - LABEL) // ROW + 1 for item in shown]
        bottom = top + LABEL + ROW * max([MIN_ROWS[lane], *rows])
        since = min(1, window.x(track.since))
        unknown = _percent(since) if since > 0 else ""
        strips.append(Strip(lane.value, top, bottom - top, unknown, not shown))
        placed += shown
        top = bottom + GAP
    tokens = [item for item in placed if item.event.kind is Kind.TOKEN_ISSUED]
    pairs = [*pairwise(tokens), *((token, None) for token in tokens[-1:])]
    failures = (item.event for item in placed if item.event.failure_id)
    failure = max(failures, key=lambda event: event.at, default=None)
    return Picture(
        period=PERIODS[window.past],
        now=_percent(window.x(now)),
        height=top + AXIS,
        axis=top,
        ticks=list(window.ticks()),
        strips=strips,
        pieces=[piece for pair in pairs for piece in _pieces(*pair, window)],
        links=[
            Link(_percent(new.x), old.y, new.y)
            for old, new in pairs
            if new is not None and new.x < old.end and new.y != old.y
        ],
        marks=[
            Mark(item.event.kind.shape, _percent(item.x), item.y)
            for item in placed
            if item.event.kind.shape not in ("bar", "tick")
        ],
        requests=sorted(
            {round(1000 * item.x) for item in placed if item.event.kind is Kind.REQUEST}
        ),
        requests_top=strips[-1].top + LABEL + (ROW - BAR) // 2,
        counts=Counter(item.event.kind.shape for item in placed),
        latest_failure=f"{failure.failure_id} at {failure.at:%H:%M:%S}"
        if failure
        else "",
    )


def _window(events: Sequence[Event], now: datetime) -> Window:
    """Return a window that fits the lifetime of the newest token."""
    lifetimes = ((e.until - e.at).total_seconds() for e in reversed(events) if e.until)
    lifetime = next(lifetimes, DEFAULT_LIFETIME)
    longest = max(PERIODS)
    past = next((p for p in PERIODS if p >= LIFETIMES * lifetime), longest)
    # A lifetime is not positive if the clocks differ.
    return Window(now, past, math.ceil(min(max(1, lifetime), longest / LIFETIMES)))


def _place(events: Iterable[Event], window: Window, top: int) -> Iterator[Placed]:
    """
    Yield the visible *events*, each in the first row below *top* that has room.

    Also counts events that are no longer visible, so that an event keeps its row.
    """
    ends: list[float] = []
    for event in sorted(events, key=lambda event: event.at):
        x = window.x(event.at)
        end = max(x, window.x(event.until)) if event.until else x
        row = next((row for row, taken in enumerate(ends) if taken <= x), len(ends))
        row = 0 if event.kind.lane is Lane.REQUESTS else min(row, MAX_ROWS - 1)
        ends[row : row + 1] = [max(end, x + MARK)]
        if x <= 1 and end >= 0:
            yield Placed(event, x, end, top + ROW * row + ROW // 2)


def _pieces(token: Placed, successor: Placed | None, window: Window) -> Iterator[Piece]:
    """Yield the life of *token*, cut where *successor* replaced it, and at now."""
    now = window.x(window.now)
    replaced = successor.x if successor else token.end
    cuts = {token.x, token.end} | {
        c for c in (now, replaced) if token.x < c < token.end
    }
    for begin, end in pairwise(sorted(cuts)):
        is_spare, is_ahead = begin >= replaced, begin >= now
        style = ("spare" if is_spare else "used") + (" ahead" if is_ahead else "")
        height = LINE if is_spare else BAR
        x, width = max(0, begin), min(1, end) - max(0, begin)
        if width > 0:
            y = token.y - height // 2
            yield Piece(style, _percent(x), y, _percent(width), height)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"
