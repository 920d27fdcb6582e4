"""
Fork detection: resets what a child process must not share with its parent.

How it works. Modules register functions with `run_in_child` that replace locks, forget
threads and clients, and drop inherited connections. After ``os.fork()`` Python calls
`detect_fork` in the child. uWSGI forks without calling Python's hooks, so the engine
also calls `detect_fork` at request boundaries and before it opens a cursor; it compares
process ids.

Invariants. Each function runs once per child, in the order of registration. It replaces
locks and never acquires one: a thread of the parent may have held the lock during the
fork, and that thread does not exist in the child. This module has no lock either.
"""

import os
from collections.abc import Callable

_resets: list[Callable[[], None]] = []
_pid = os.getpid()


def run_in_child(reset: Callable[[], None]) -> Callable[[], None]:
    """Register *reset* to run in each child process; can be used as a decorator."""
    _resets.append(reset)
    return reset


def detect_fork() -> None:
    """Run the registered functions if this is a child that has not run them yet."""
    global _pid  # noqa: PLW0603 - the state of this process.
    if _pid != os.getpid():
        _pid = os.getpid()
        for reset in _resets:
            reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=detect_fork)
