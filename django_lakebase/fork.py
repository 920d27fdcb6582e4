"""
Cleaning up in a forked child: locks, threads, clients and sockets of the parent.

Python runs the hooks after ``os.fork()``. uWSGI forks without them, so the engine also
calls `detect_fork` at the start of each request.
"""

import os
from collections.abc import Callable

_resets: list[Callable[[], None]] = []
_pid = os.getpid()


def run_in_child(reset: Callable[[], None]) -> Callable[[], None]:
    """Register *reset* to run in every child process; usable as a decorator."""
    _resets.append(reset)
    return reset


def detect_fork() -> None:
    """Run the registered functions if this is a child that has not run them yet."""
    global _pid  # noqa: PLW0603 - of this process.
    if _pid != os.getpid():
        _pid = os.getpid()
        for reset in _resets:
            reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=detect_fork)
