"""The schedule: rounds of faults, drawn from a seed."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from .faults import FAULTS, Fault

# A fault lasts between these multiples of connect_budget: shorter than it, or longer.
SHORTEST, LONGEST = 0.3, 1.7
MAX_SIMULTANEOUS = 3
# How often the writers lose their credentials, for faults that allow it.
DROP_PROBABILITY = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledFault:
    """A fault in a round; *start* and *end* are seconds from the start of the round."""

    fault: Fault
    start: float
    duration: float
    drops_credentials: bool

    @property
    def end(self) -> float:
        """Seconds from the start of the round."""
        return self.start + self.duration


def generate_rounds(
    seed: int, budget: float, *, pool: bool, only: str = ""
) -> Iterator[list[ScheduledFault]]:
    """
    Yield an endless sequence of rounds.

    Rounds with a single fault, each in turn, alternate with random combinations.
    """
    random = Random(f"chaos {seed}")  # noqa: S311
    faults = [f for f in FAULTS if (pool or not f.pool_only) and only in f.name]
    if not faults:
        raise ValueError(f"no fault has a name that contains {only!r}")
    order = list(faults)
    random.shuffle(order)
    while True:
        for fault in order:
            yield [_schedule(random, fault, budget, 0.0)]
            if len(faults) > 1:
                yield _combine(random, faults, budget)


def _combine(
    random: Random, faults: list[Fault], budget: float
) -> list[ScheduledFault]:
    scheduled: list[ScheduledFault] = []
    keys: set[str] = set()
    for fault in random.sample(faults, min(len(faults), 2 * MAX_SIMULTANEOUS)):
        if fault.exclusive_key not in keys and len(scheduled) < MAX_SIMULTANEOUS:
            keys.add(fault.exclusive_key)
            start = random.uniform(0, budget / 2) if scheduled else 0.0
            scheduled.append(_schedule(random, fault, budget, start))
    return scheduled


def _schedule(
    random: Random, fault: Fault, budget: float, start: float
) -> ScheduledFault:
    duration = budget * random.uniform(SHORTEST, LONGEST)
    drops_credentials = fault.drops_credentials and random.random() < DROP_PROBABILITY
    return ScheduledFault(
        fault=fault,
        start=start,
        duration=duration,
        drops_credentials=drops_credentials,
    )
