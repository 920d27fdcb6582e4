"""How the bench measures: turn by turn, ratios with their spread, values for pages."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

Work = Callable[[], object]

# The first rounds fill caches.
UNCOUNTED = 3


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of medians, and the middle half of the rounds' own ratios."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        # Three digits that say something, below one hundredth too.
        return f"{self.middle:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """
    One line of the report.

    *is_met* is None where there is no goal; *ratio* is what a picture can draw.
    """

    what: str
    figure: str
    goal: str = ""
    is_met: bool | None = None
    ratio: Ratio | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A part that was not measured, and why."""

    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of time of a way that is measured step by step, in milliseconds."""

    way: str
    name: str
    milliseconds: float


def seconds(work: Work) -> float:
    """Return how long *work* takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def turns(
    ways: Sequence[Work], rounds: int, after: Work = lambda: None
) -> list[list[float]]:
    """
    Return the seconds that each of *ways* takes in each of *rounds*.

    Turn by turn, so that noise hits all of them; who begins changes each round.
    *after* each of them something is done that does not count.
    """
    taken: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + UNCOUNTED):
        first = number % len(ways)
        for place in (*range(first, len(ways)), *range(first)):
            taken[place].append(seconds(ways[place]))
            after()
    return [times[UNCOUNTED:] for times in taken]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratio of *ours* to *theirs*, which were taken round by round."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(each, n=4)
    return Ratio(statistics.median(ours) / statistics.median(theirs), low, high)


def compared(
    what: str, taken: Sequence[Sequence[float]], most: float | None = None
) -> Figure:
    """Return the figure of what was *taken* by us and by another; at *most* is good."""
    ours, theirs = taken
    found = ratio(ours, theirs)
    medians = statistics.median(ours), statistics.median(theirs)
    return Figure(
        what=what,
        figure=f"{found}: {in_words(medians[0])} and {in_words(medians[1])}",
        goal=f"<= {most:g}" if most else "",
        is_met=None if most is None else found.middle <= most,
        ratio=found,
        most=most,
    )


def in_words(span: float) -> str:
    """Return *span*, in seconds, with the unit that suits it."""
    if span >= 1:
        return f"{span:.1f} s"
    if span >= 0.001:
        return f"{span * 1e3:.1f} ms"
    return f"{span * 1e6:.0f} microseconds"


def in_threads(work: Work, times: int, threads: int) -> float:
    """
    Return how long *times* calls of *work* take in all *threads* together.

    Raises the first error that a call has raised.
    """
    with ThreadPoolExecutor(threads) as workers:
        started = time.perf_counter()
        for done in [workers.submit(work) for _ in range(times)]:
            done.result()
        return time.perf_counter() - started
