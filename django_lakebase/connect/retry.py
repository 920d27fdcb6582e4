"""
The retry ladder: what follows a failed attempt to connect, and after how long.

It decides and never waits, so a test can walk it in no time. What a failure asks for
is in the table of failures.
"""

import random
import time
from collections.abc import Callable

from .kinds import Then

# Seconds that "External authorization failed" is waited out: a new branch gives it for
# a while, an IP access list for ever.
BRIEFLY = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0


class Ladder:
    """
    What to do after a failed attempt, apart from doing it.

    *patient* waits for an endpoint that wakes; a pool's worker does not, since the
    pool itself waits.
    """

    def __init__(
        self,
        budget: float,
        *,
        patient: bool = True,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._now, self._chance, self._patient = now, chance, patient
        self._started = now()
        self._deadline = self._started + budget
        self._spent: set[Then] = set()
        self._pause = FIRST_PAUSE

    def left(self) -> float:
        """Return the seconds that are left of the budget."""
        return self._deadline - self._now()

    def next(self, then: Then, *, at_least: float = 0.0) -> tuple[Then, float]:
        """Return what comes next, and after how many seconds, *at_least* so many."""
        if then in (Then.RENEW, Then.PROBE):
            if then in self._spent or self.left() <= 0:
                return Then.STOP, 0.0
            self._spent.add(then)
            return then, 0.0
        if then is Then.STOP or not self._patient:
            return Then.STOP, 0.0
        # Added, and not the longer one: those who wait for the same must not come
        # together.
        pause = at_least + self._pause * (0.5 + self._chance() / 2)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        bound = self.left()
        if then is Then.WAIT_BRIEFLY:
            bound = min(bound, self._started + BRIEFLY - self._now())
        return (Then.STOP, 0.0) if pause >= bound else (Then.WAIT, pause)
