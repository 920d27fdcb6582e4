"""
The state that the threads of this process share, and its reset in a forked child.

How it works. `lock` guards all shared state of the engine: it is held for a few
instructions, never during I/O. `import_lock` is held while a thread imports the SDK,
and by a thread that forks during the fork: a fork while another thread imports would
leave the child with a half-initialised module and a locked import lock. Both are
reentrant, because Python may run a signal handler, which may fork, while its thread
holds them.

After ``os.fork()`` Python calls `detect_fork` in the child. uWSGI forks without calling
Python's hooks, so the engine also calls it at request boundaries and before it opens a
cursor; it compares process ids. It replaces both locks, because a thread of the parent
that does not exist in the child may hold them, and then runs the functions registered
with `run_in_child`, once per child and in the order of registration. A signal handler
that interrupts this runs those that are left.
"""

import os
import threading
from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[[], object])

lock = threading.RLock()
import_lock = threading.RLock()

_before_fork: list[Callable[[], object]] = []
_in_child: list[Callable[[], object]] = []
_pid = os.getpid()
# What is left to run in a child, by the process ids of parent and child: one thread
# resets the state, and the others wait for it.
_resets: dict[
    tuple[int, int], tuple["threading.RLock", list[Callable[[], object]]]
] = {}


def run_before_fork(function: F) -> F:
    """Register *function* to run in the parent before it forks; it must not raise."""
    _before_fork.append(function)
    return function


def run_in_child(function: F) -> F:
    """Register *function* to run in each forked child; can be used as a decorator."""
    _in_child.append(function)
    return function


def detect_fork() -> None:
    """Reset the shared state if this is a child that has not done so yet."""
    global _pid  # noqa: PLW0603 - the state of this process.
    parent, pid = _pid, os.getpid()
    if parent == pid:
        return
    # setdefault() is atomic, and no thread of the parent can hold this lock.
    new = threading.RLock(), [_replace_locks, *_in_child]
    reset_lock, functions = _resets.setdefault((parent, pid), new)
    with reset_lock:
        while functions:
            functions.pop(0)()
        _pid = pid


def _replace_locks() -> None:
    global lock, import_lock
    lock, import_lock = threading.RLock(), threading.RLock()


def _prepare_fork() -> None:
    try:
        for function in _before_fork:
            function()
    finally:
        # Also after a KeyboardInterrupt, which does not stop the fork.
        import_lock.acquire()


def _end_fork() -> None:
    import_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_prepare_fork, after_in_parent=_end_fork, after_in_child=detect_fork
    )
