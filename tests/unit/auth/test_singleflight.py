"""The slow call that one thread makes for all."""

import threading

import pytest

from django_lakebase import flight
from django_lakebase.flight import FlightError, SingleFlight
from tests.helpers.threads import join_threads


def nothing():
    """Prepare nothing."""


def test_a_missing_package_is_an_error_of_the_call():
    """It reaches the caller as the reason, like any other."""

    def prepare():
        raise ImportError("no such package")

    with pytest.raises(FlightError) as caught:
        SingleFlight(lambda: 1, prepare=prepare).wait(1)

    assert isinstance(caught.value.__cause__, ImportError)


def test_a_process_without_threads_calls_by_itself(monkeypatch):
    """UWSGI without threads, or an interpreter that is ending."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert SingleFlight(lambda: 7, prepare=nothing).wait(1) == 7


def test_a_call_that_never_returns_is_left_behind(monkeypatch):
    """After the bound the next caller starts afresh, and one thread is left."""
    gate = threading.Event()
    calls = []

    def work():
        calls.append(1)
        if len(calls) == 1:
            gate.wait(10)
            return "late"
        return "second"

    landed = []

    def land(result):
        landed.append(result)
        return result

    single = SingleFlight(work, prepare=nothing, landed=land)
    with pytest.raises(FlightError):
        single.wait(0.01)
    single.start().started -= 1
    monkeypatch.setattr(flight, "CALL_BOUND", 0.0)

    second = single.start()
    assert second.done.wait(10)
    gate.set()

    assert (second.result, landed) == ("second", ["second"])


def test_only_one_thread_is_left_behind(monkeypatch):
    """A service that hangs for hours does not fill the process with threads."""
    gate = threading.Event()
    single = SingleFlight(lambda: gate.wait(10), prepare=nothing)
    first = single.start()
    monkeypatch.setattr(flight, "CALL_BOUND", -1.0)

    second, third = single.start(), single.start()
    gate.set()

    assert second is not first
    assert third is second


def test_frames_are_cut():
    """An error's frames would show the client's secrets."""

    def work():
        try:
            raise ValueError("inner")
        except ValueError as exc:
            raise OSError("outer") from exc

    with pytest.raises(FlightError) as caught:
        SingleFlight(work, prepare=nothing).wait(1)

    outer = caught.value.__cause__
    assert outer is not None
    assert outer.__cause__ is not None
    assert outer.__traceback__ is None
    assert outer.__cause__.__traceback__ is None


def test_a_call_whose_thread_was_killed_is_made_again(monkeypatch):
    """The callers wait for the next one: they did nothing to be told of."""
    calls = []
    # Python's own says nothing of a thread that ends so, pytest's does.
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def work():
        calls.append(1)
        if len(calls) == 1:
            # What a killed thread dies of: PyThreadState_SetAsyncExc raises it too.
            raise SystemExit
        return "again"

    assert SingleFlight(work, prepare=nothing).wait(10) == "again"
    join_threads("lakebase-workspace")
