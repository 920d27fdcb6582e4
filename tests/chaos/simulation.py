"""
Simulation: ``python -m tests.chaos.simulation --processes 10000 --hours 24``.

The engine's own cache in thousands of processes over a day, with a clock of our own
and a control plane of a few lines. All start in the same second. Each process has
requests at random, on average one in *every* seconds; time jumps from one that the
cache will not answer from memory to the next.
"""

import argparse
import heapq
import itertools
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

from django_lakebase.credentials import Credential, CredentialCache, CredentialError
from django_lakebase.kinds import Then
from django_lakebase.ladder import Ladder

from django_lakebase import flight

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
LIFE = timedelta(hours=1)
RETRY_AFTER = 1.0
BUDGET = 20.0


class TooMany(Exception):  # noqa: N818 - as the SDK calls it.
    """The control plane's 429."""

    retry_after_secs = RETRY_AFTER


class Inline(flight._Call[Credential]):
    """A call that is over when it was started: the control plane takes no time."""

    def start(self):
        self._run()


class World:
    """The clock, and the control plane with its limit."""

    def __init__(self, per_second):
        self.seconds = 0.0
        self._per_second = per_second
        self._held, self._at = max(1.0, per_second), 0.0
        self.asked, self.refused = Counter(), 0

    def now(self):
        """Return the time."""
        return MIDNIGHT + timedelta(seconds=self.seconds)

    def fetch(self):
        """Answer a request for a credential, or refuse it."""
        self.asked[int(self.seconds)] += 1
        if self._per_second and not self._let_through():
            self.refused += 1
            raise TooMany
        return Credential(token="t", issued_at=self.now(), expires_at=self.now() + LIFE)

    def _let_through(self):
        most = max(1.0, self._per_second)
        filled = (self.seconds - self._at) * self._per_second
        self._held, self._at = min(most, self._held + filled), self.seconds
        if self._held < 1:
            return False
        self._held -= 1
        return True


class Process:
    """One process: its cache, and what it is waiting for."""

    def __init__(self, world, chance, every):
        self._world, self._chance, self._every = world, chance, every
        self.cache = CredentialCache(
            world.fetch, name="it", now=world.now, chance=chance.random
        )
        self._ladder = None
        self._waits_since = 0.0
        self.waited, self.errors = 0.0, 0

    def act(self):
        """Serve a request; return the seconds until the next that matters."""
        world = self._world
        try:
            self.cache.get()
        except CredentialError:
            return self._wait()
        if self._ladder is not None:
            self.waited = max(self.waited, world.seconds - self._waits_since)
            self._ladder = None
        # Until then the cache answers from memory, as often as it is asked.
        due = max(self.cache._refresh_at, self.cache._retry_at or MIDNIGHT)
        return max(0.0, (due - world.now()).total_seconds()) + self._gap()

    def _wait(self):
        """Climb the ladder as a connect does; begin another after an error."""
        if self._ladder is None:
            self._ladder, self._waits_since = self._new_ladder(), self._world.seconds
        then, pause = self._ladder.next(Then.WAIT, at_least=RETRY_AFTER)
        if then is Then.STOP:
            self.errors += 1
            self._ladder = self._new_ladder()
            return self._gap()
        return pause

    def _new_ladder(self):
        return Ladder(
            BUDGET, now=lambda: self._world.seconds, chance=self._chance.random
        )

    def _gap(self):
        return self._chance.expovariate(1 / self._every)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the control plane saw, requests per second, and what processes waited."""

    start: int
    peak: int
    mean: float
    last_peak: int
    refused: int
    waited: float
    errors: int


def simulate(processes, hours, *, per_second, every, seed):
    """Return the figures of a day."""
    chance, world = Random(f"fleet {seed}"), World(per_second)  # noqa: S311
    fleet = [Process(world, chance, every) for _ in range(processes)]
    numbers = itertools.count()
    # All within the first second.
    events = [(chance.random(), next(numbers), process) for process in fleet]
    heapq.heapify(events)
    real, flight._Call = flight._Call, Inline
    try:
        while events and events[0][0] < hours * 3600:
            world.seconds, _, process = heapq.heappop(events)
            later = world.seconds + process.act()
            heapq.heappush(events, (later, next(numbers), process))
    finally:
        flight._Call = real
    return _figures(world, fleet, hours)


def _figures(world, fleet, hours):
    # The start is over when each has been served, ten minutes at most here.
    start = {second: n for second, n in world.asked.items() if second < 600}
    later = {second: n for second, n in world.asked.items() if second >= 600}
    last = [n for second, n in later.items() if second >= (hours - 6) * 3600]
    return Figures(
        start=max(start.values()),
        peak=max(later.values(), default=0),
        mean=sum(later.values()) / (hours * 3600 - 600),
        last_peak=max(last, default=0),
        refused=world.refused,
        waited=max(process.waited for process in fleet),
        errors=sum(process.errors for process in fleet),
    )


def main():
    """Simulate without a limit and with some, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=10_000)
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--every", type=float, default=2.0, help="s between requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limits", type=float, nargs="*", default=[0, 50, 20])
    arguments = parser.parse_args()
    print(
        "| limit | busiest second, start | later | last 6 hours | mean | refused "
        "| longest wait | errors |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for limit in arguments.limits:
        found = simulate(
            arguments.processes,
            arguments.hours,
            per_second=limit,
            every=arguments.every,
            seed=arguments.seed,
        )
        named = f"{limit:g}/s" if limit else "none"
        print(
            f"| {named} | {found.start} | {found.peak} | {found.last_peak} "
            f"| {found.mean:.1f} | {found.refused} | {found.waited:.0f} s "
            f"| {found.errors} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
