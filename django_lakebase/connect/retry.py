"""
The retry policy: what to do after a failed attempt to connect, and how long to wait.

The policy decides and never sleeps, so tests of it take no time. The failure table says
which action each failure asks for.
"""

import random
import time
from collections.abc import Callable

from django_lakebase.failures.failure import Action

# "External authorization failed" clears within seconds for a new branch and never for
# an IP access list, so it is retried for this many seconds only.
BRIEF_RETRY_SECONDS = 10.0
# Seconds between attempts: the first pause, doubled after each up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0


class RetryPolicy:
    """
    Decides whether and when to try again, within *budget* seconds.

    *now* returns seconds, *jitter* a number from 0 to 1.
    """

    def __init__(
        self,
        budget: float,
        *,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._now, self._jitter = now, jitter
        self._started = now()
        self._deadline = self._started + budget
        self._used: set[Action] = set()
        self._pause = FIRST_PAUSE

    def left(self) -> float:
        """Return the seconds that are left of the budget; negative after its end."""
        return self._deadline - self._now()

    def next(self, action: Action, *, at_least: float = 0.0) -> tuple[Action, float]:
        """
        Return the next action, and the seconds to wait before it.

        *action* is what the failure asks for. ``refresh`` and ``probe`` are each
        granted once, without a wait. ``retry_briefly`` is granted as ``retry``. A wait
        is at least *at_least* seconds; if it would exceed the budget, the result is
        ``fail``.
        """
        if action in (Action.REFRESH, Action.PROBE):
            if action in self._used or self.left() <= 0:
                return Action.FAIL, 0.0
            self._used.add(action)
            return action, 0.0
        if action is Action.FAIL:
            return Action.FAIL, 0.0
        # The sum, not the maximum: processes that got the same Retry-After must not
        # retry at the same moment.
        pause = at_least + self._pause * (0.5 + self._jitter() / 2)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        limit = self.left()
        if action is Action.RETRY_BRIEFLY:
            limit = min(limit, self._started + BRIEF_RETRY_SECONDS - self._now())
        return (Action.FAIL, 0.0) if pause >= limit else (Action.RETRY, pause)
