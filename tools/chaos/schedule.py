"""What goes wrong when: rounds of troubles, drawn from a seed."""

from dataclasses import dataclass
from random import Random

from .faults import TROUBLES, Trouble

# Shares of connect_budget that a trouble lasts: shorter than it, and longer.
SHORTEST, LONGEST = 0.3, 1.7
MOST_AT_ONCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """A trouble in a round: seconds from its begin, and how long."""

    trouble: Trouble
    begins: float
    lasts: float
    forgets: bool

    @property
    def ends(self):
        """Seconds from the begin of the round."""
        return self.begins + self.lasts


def rounds(seed, budget, *, pool, only=""):
    """Yield rounds for ever: each trouble alone in turn with mixtures at random."""
    chance = Random(f"chaos {seed}")  # noqa: S311
    known = [t for t in TROUBLES if (pool or not t.pool_only) and only in t.name]
    alone = list(known)
    chance.shuffle(alone)
    while True:
        for trouble in alone:
            yield [_play(chance, trouble, budget, 0.0)]
            if len(known) > 1:
                yield _mixed(chance, known, budget)


def _mixed(chance, known, budget):
    plays, things = [], set()
    for trouble in chance.sample(known, min(len(known), 2 * MOST_AT_ONCE)):
        if trouble.thing not in things and len(plays) < MOST_AT_ONCE:
            things.add(trouble.thing)
            begins = chance.uniform(0, budget / 2) if plays else 0.0
            plays.append(_play(chance, trouble, budget, begins))
    return plays


def _play(chance, trouble, budget, begins):
    lasts = budget * chance.uniform(SHORTEST, LONGEST)
    forgets = trouble.forgets and chance.random() < 0.7
    return Play(trouble=trouble, begins=begins, lasts=lasts, forgets=forgets)
