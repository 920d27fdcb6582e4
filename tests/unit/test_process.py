"""The state that a forked child resets."""

import os
import signal
import threading
from collections.abc import Callable

import pytest

from django_lakebase import process


@pytest.fixture
def as_child(monkeypatch):
    """Let this process look like a child that uWSGI has forked."""
    monkeypatch.setattr(process, "_pid", -1)
    monkeypatch.setattr(process, "_resets", {})
    functions: list[Callable[[], object]] = []
    monkeypatch.setattr(process, "_in_child", functions)
    for name in ("lock", "import_lock"):
        monkeypatch.setattr(process, name, getattr(process, name))
    return functions


def test_child_replaces_the_locks_and_runs_each_function_once(as_child):
    before, calls = (process.lock, process.import_lock), []
    as_child += [lambda: calls.append("first"), lambda: calls.append("second")]

    process.detect_fork()
    process.detect_fork()

    assert calls == ["first", "second"]
    assert process.lock is not before[0]
    assert process.import_lock is not before[1]


def test_other_threads_of_a_child_wait_until_its_state_is_reset(as_child):
    """Otherwise, they could use a connection of the parent."""
    entered, gate, order = threading.Event(), threading.Event(), []

    def reset():
        entered.set()
        gate.wait(10)
        order.append("reset")

    def use():
        process.detect_fork()
        order.append("used")

    as_child.append(reset)
    first = threading.Thread(target=process.detect_fork)
    first.start()
    entered.wait(10)
    second = threading.Thread(target=use)
    second.start()
    # A thread that does not wait ends here.
    second.join(0.2)
    gate.set()
    first.join()
    second.join()

    assert order == ["reset", "used"]


def test_signal_handler_that_queries_during_the_reset_does_not_deadlock(as_child):
    """Python runs it in the thread that resets the state."""
    order = []

    def interrupt():
        signal.raise_signal(signal.SIGUSR1)
        order.append("first")

    def handle(*_):
        process.detect_fork()
        order.append("handled")

    as_child += [interrupt, lambda: order.append("second")]
    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        process.detect_fork()
    finally:
        signal.signal(signal.SIGUSR1, previous)

    assert order == ["second", "handled", "first"]


def test_interrupt_before_a_fork_leaves_imports_blocked_during_it(monkeypatch):
    """Python ignores the interrupt, and forks."""
    released = []

    class Lock:
        def acquire(self):
            released.append(False)

        def release(self):
            assert released == [False]
            released[:] = [True]

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(process, "import_lock", Lock())
    monkeypatch.setattr(process, "_before_fork", [interrupt])
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)

    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)

    assert released == [True]
