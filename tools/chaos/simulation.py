"""
Simulation of thousands of processes over a day (part of ``make thundering-herd``).

It runs the engine's own credential cache in each process, with a simulated clock and
workspace API. All processes start in the same second and get requests at random times.
The clock jumps to the next request that the cache may not answer from memory.
"""

import argparse
import heapq
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from django_lakebase.auth import singleflight
from django_lakebase.auth.credentials import Credential, CredentialCache
from django_lakebase.connect.retry import RetryPolicy
from django_lakebase.failures.failure import Action

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIME = timedelta(hours=1)
# Seconds.
RETRY_AFTER = 1.0
BUDGET = 20.0
# The start is over when every process has been served, here after ten minutes.
START_SECONDS = 600


class TooManyRequests(Exception):  # noqa: N818 - the SDK's name.
    """The API's response 429."""

    retry_after_secs = RETRY_AFTER


class InlineCall(singleflight.Call[Credential]):
    """A call without a thread, because the simulated API answers immediately."""

    def start(self, function: Callable[[], Credential]) -> None:
        self._run(function)


class Workspace:
    """The simulated clock, and the API with its limit of requests per second."""

    def __init__(self, per_second: float) -> None:
        self.seconds = 0.0
        # A token bucket.
        self._per_second = per_second
        self._available, self._filled_at = max(1.0, per_second), 0.0
        self.requests: Counter[int] = Counter()
        self.rejected = 0

    def now(self) -> datetime:
        """Return the simulated time."""
        return MIDNIGHT + timedelta(seconds=self.seconds)

    def fetch(self) -> Credential:
        """Return a credential; raises TooManyRequests over the limit."""
        self.requests[int(self.seconds)] += 1
        if self._per_second and not self._take_token():
            self.rejected += 1
            raise TooManyRequests
        return Credential(
            token="t",  # noqa: S106
            issued_at=self.now(),
            expires_at=self.now() + LIFETIME,
        )

    def _take_token(self) -> bool:
        capacity = max(1.0, self._per_second)
        added = (self.seconds - self._filled_at) * self._per_second
        self._available = min(capacity, self._available + added)
        self._filled_at = self.seconds
        if self._available < 1:
            return False
        self._available -= 1
        return True


class Process:
    """One process: its cache, and the connect attempt in progress."""

    def __init__(self, workspace: Workspace, random: Random, interval: float) -> None:
        self._workspace, self._random, self._interval = workspace, random, interval
        self.cache = CredentialCache(
            workspace.fetch, name="simulated", now=workspace.now, jitter=random.random
        )
        self._retries: RetryPolicy | None = None
        self._waiting_since = 0.0
        self.longest_wait, self.errors = 0.0, 0

    def serve(self) -> float:
        """Serve a request; return the seconds until the next one that matters."""
        workspace = self._workspace
        try:
            self.cache.get()
        except singleflight.CallError:
            return self._retry()
        if self._retries is not None:
            waited = workspace.seconds - self._waiting_since
            self.longest_wait = max(self.longest_wait, waited)
            self._retries = None
        # Until then, the cache answers all requests from memory.
        refresh_at = self.cache.refresh_at or MIDNIGHT
        due_at = max(refresh_at, self.cache.retry_at or MIDNIGHT)
        until_due = (due_at - workspace.now()).total_seconds()
        return max(0.0, until_due) + self._time_between_requests()

    def _retry(self) -> float:
        """Apply the retry policy of a connect; after an error, start another one."""
        if self._retries is None:
            self._retries = self._new_policy()
            self._waiting_since = self._workspace.seconds
        action, pause = self._retries.next(Action.RETRY, at_least=RETRY_AFTER)
        if action is Action.FAIL:
            self.errors += 1
            self._retries = self._new_policy()
            return self._time_between_requests()
        return pause

    def _new_policy(self) -> RetryPolicy:
        return RetryPolicy(
            BUDGET, now=lambda: self._workspace.seconds, jitter=self._random.random
        )

    def _time_between_requests(self) -> float:
        return self._random.expovariate(1 / self._interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Requests per second to the API, and how long processes waited (seconds)."""

    start_peak: int
    peak: int
    mean: float
    last_peak: int
    rejected: int
    longest_wait: float
    errors: int


def simulate(
    size: int, hours: float, *, per_second: float, interval: float, seed: int
) -> Summary:
    """
    Simulate *size* processes for *hours*.

    *per_second* is the API's limit (0 for none), *interval* the mean seconds between
    two requests of a process.
    """
    random = Random(f"fleet {seed}")  # noqa: S311
    workspace = Workspace(per_second)
    processes = [Process(workspace, random, interval) for _ in range(size)]
    # Breaks ties in the heap, because processes cannot be compared.
    numbers = itertools.count()
    # All start within the first second.
    events = [(random.random(), next(numbers), process) for process in processes]
    heapq.heapify(events)
    real, singleflight.Call = singleflight.Call, InlineCall  # type: ignore[assignment, misc]
    try:
        while events and events[0][0] < hours * 3600:
            workspace.seconds, _, process = heapq.heappop(events)
            next_at = workspace.seconds + process.serve()
            heapq.heappush(events, (next_at, next(numbers), process))
    finally:
        singleflight.Call = real  # type: ignore[misc]
    return _summarize(workspace, processes, hours)


def _summarize(
    workspace: Workspace, processes: Sequence[Process], hours: float
) -> Summary:
    requests = workspace.requests.items()
    start = [count for second, count in requests if second < START_SECONDS]
    later = {second: count for second, count in requests if second >= START_SECONDS}
    last = [count for second, count in later.items() if second >= (hours - 6) * 3600]
    return Summary(
        start_peak=max(start),
        peak=max(later.values(), default=0),
        mean=sum(later.values()) / (hours * 3600 - START_SECONDS),
        last_peak=max(last, default=0),
        rejected=workspace.rejected,
        longest_wait=max(process.longest_wait for process in processes),
        errors=sum(process.errors for process in processes),
    )


def main() -> int:
    """Simulate several limits and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.chaos.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--processes", type=int, default=10_000)
    add("--hours", type=float, default=24)
    add("--interval", type=float, default=2.0, help="mean seconds between requests")
    add("--seed", type=int, default=1)
    add(
        "--limits",
        type=float,
        nargs="*",
        default=[0, 50, 20],
        help="limits of the API in requests per second; 0 for none",
    )
    options = parser.parse_args()
    print(
        "| limit | busiest second of the start | later | last 6 hours | mean "
        "| rejected | longest wait | errors |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for limit in options.limits:
        summary = simulate(
            options.processes,
            options.hours,
            per_second=limit,
            interval=options.interval,
            seed=options.seed,
        )
        label = f"{limit:g}/s" if limit else "none"
        print(
            f"| {label} | {summary.start_peak} | {summary.peak} | {summary.last_peak} "
            f"| {summary.mean:.1f} | {summary.rejected} | {summary.longest_wait:.0f} s "
            f"| {summary.errors} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
