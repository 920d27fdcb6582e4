"""
The end of a pooled connection's lifetime.

psycopg_pool has no public name for it, and the engine changes it in one place, too.
"""

from typing import Any


def end_lifetime(connection: Any) -> None:
    """Let the pool replace *connection* when it is returned."""
    assert connection._expire_at > 0  # noqa: SLF001
    connection._expire_at = 0.0  # noqa: SLF001


def lifetime_end(connection: Any) -> float:
    """Return when the pool replaces *connection*, on the monotonic clock."""
    return float(connection._expire_at)  # noqa: SLF001
