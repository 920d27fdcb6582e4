"""How many requests a principal may make in a second."""

import time
from collections.abc import Callable


class Limits:
    """A bucket of requests for each principal, filled at a steady rate."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}

    def let_through(self, principal: str, per_second: float) -> bool:
        """Take a request of *principal* out of its bucket, if there is one in it."""
        now, most = self._now(), max(1.0, per_second)
        held, at = self._buckets.get(principal, (most, now))
        held = min(most, held + (now - at) * per_second)
        is_enough = held >= 1
        self._buckets[principal] = held - is_enough, now
        return is_enough
