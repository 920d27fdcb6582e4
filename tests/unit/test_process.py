"""The state that a forked child resets."""

import threading
from collections.abc import Callable

import pytest

from django_lakebase import process


@pytest.fixture
def as_child(monkeypatch):
    """Let this process look like a child that uWSGI has forked."""
    monkeypatch.setattr(process, "_pid", -1)
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
