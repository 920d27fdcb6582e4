"""
What a child process forgets of its parent: its locks, threads, clients and sockets.

Python's hooks do that at os.fork(). uWSGI forks without them, so what is done first in
a request calls `notice` too.
"""

import os
from collections.abc import Callable

_resets: list[Callable[[], None]] = []
_pid = os.getpid()


def in_child(reset: Callable[[], None]) -> Callable[[], None]:
    """Have *reset* called in every child process; for use as a decorator."""
    _resets.append(reset)
    return reset


def notice() -> None:
    """Forget what is the parent's, where this is a child that has not done so."""
    global _pid  # noqa: PLW0603 - of this process.
    if _pid != os.getpid():
        _pid = os.getpid()
        for reset in _resets:
            reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=notice)
