"""How many requests a principal may make in a second."""

import time
from collections.abc import Callable


class RateLimiter:
    """A bucket of requests for each principal, filled at a steady rate."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}

    def allow(self, principal: str, per_second: float) -> bool:
        """Take a request of *principal* out of its bucket, if there is one in it."""
        now, capacity = self._now(), max(1.0, per_second)
        tokens, at = self._buckets.get(principal, (capacity, now))
        tokens = min(capacity, tokens + (now - at) * per_second)
        is_enough = tokens >= 1
        self._buckets[principal] = tokens - is_enough, now
        return is_enough
