"""Timing functions, and the measurements that the report is built from."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

Work = Callable[[], object]

# The first rounds fill caches and are not counted.
WARM_UP_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of medians, with the interquartile range of the ratios per round."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        # Three significant digits, also for ratios below one hundredth.
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """
    One row of the report.

    *is_met* is None if there is no goal. The chart shows measurements that have a
    *ratio*, and *limit* (the largest ratio that meets the goal) as a mark.
    """

    name: str
    value: str
    goal: str = ""
    is_met: bool | None = None
    ratio: Ratio | None = None
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A benchmark that did not run or did not finish, and the reason."""

    reason: str
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a process's startup with one backend, in milliseconds."""

    backend: str
    name: str
    milliseconds: float


def measure(work: Work) -> float:
    """Return the seconds that *work* takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure_alternately(
    works: Sequence[Work], rounds: int, after: Work = lambda: None
) -> list[list[float]]:
    """
    Return the seconds that each of *works* takes in each of *rounds*.

    Every round runs all of them, so that noise affects them alike, and each round
    starts with the next one. *after* runs after each of them and is not timed.
    """
    seconds: list[list[float]] = [[] for _ in works]
    for number in range(rounds + WARM_UP_ROUNDS):
        first = number % len(works)
        for index in (*range(first, len(works)), *range(first)):
            seconds[index].append(measure(works[index]))
            after()
    return [times[WARM_UP_ROUNDS:] for times in seconds]


def measure_in_threads(work: Work, times: int, threads: int) -> float:
    """
    Return the seconds that *threads* threads take for *times* calls of *work*.

    Raises the first error that a call raised.
    """
    with ThreadPoolExecutor(threads) as executor:
        started = time.perf_counter()
        for future in [executor.submit(work) for _ in range(times)]:
            future.result()
        return time.perf_counter() - started


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratio of *ours* to *theirs*, which were measured round by round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return Ratio(statistics.median(ours) / statistics.median(theirs), low, high)


def compare(
    name: str, seconds: Sequence[Sequence[float]], limit: float | None = None
) -> Measurement:
    """Return the ratio of our times to theirs; at most *limit* is the goal."""
    ours, theirs = seconds
    ratio = ratio_of(ours, theirs)
    medians = statistics.median(ours), statistics.median(theirs)
    return Measurement(
        name=name,
        value=f"{ratio}: {format_seconds(medians[0])} and {format_seconds(medians[1])}",
        goal=f"<= {limit:g}" if limit else "",
        is_met=None if limit is None else ratio.value <= limit,
        ratio=ratio,
        limit=limit,
    )


def format_seconds(seconds: float) -> str:
    """Return *seconds* as text, in the unit that suits the size."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    if seconds >= 0.001:
        return f"{seconds * 1e3:.1f} ms"
    return f"{seconds * 1e6:.0f} microseconds"
