"""The slow call that one thread makes for all callers."""

import threading

import pytest

from django_lakebase.auth import singleflight
from django_lakebase.auth.singleflight import CallError, SingleFlight
from tests.helpers.engine_threads import join_threads


def test_import_error_of_prepare_is_the_cause_of_the_error():
    def prepare():
        raise ImportError("no such package")

    with pytest.raises(CallError) as caught:
        SingleFlight(lambda: 1, prepare=prepare).wait(1)

    assert isinstance(caught.value.__cause__, ImportError)


def test_caller_runs_the_function_where_no_thread_can_start(monkeypatch):
    """As under uWSGI without threads, or while the interpreter shuts down."""

    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert SingleFlight(lambda: 7).wait(1) == 7


def test_call_that_exceeds_the_time_limit_is_abandoned(monkeypatch):
    """Its late result is ignored."""
    gate = threading.Event()
    calls = []

    def work():
        calls.append(1)
        if len(calls) == 1:
            gate.wait(10)
            return "late"
        return "second"

    landed: list[str] = []
    single = SingleFlight(work, on_result=landed.append)
    with pytest.raises(CallError):
        single.wait(0.01)
    single.start().started_at -= 1
    monkeypatch.setattr(singleflight, "CALL_TIMEOUT", 0.0)

    second = single.start()
    assert second.result(10) == "second"
    gate.set()

    assert landed == ["second"]


def test_only_one_abandoned_thread_at_a_time(monkeypatch):
    """A service that hangs for hours does not fill the process with threads."""
    gate = threading.Event()
    single = SingleFlight(lambda: gate.wait(10))
    first = single.start()
    monkeypatch.setattr(singleflight, "CALL_TIMEOUT", -1.0)

    second, third = single.start(), single.start()
    gate.set()

    assert second is not first
    assert third is second


def test_tracebacks_of_errors_are_removed():
    """Their frames hold the client's secrets."""

    def work():
        try:
            raise ValueError("inner")
        except ValueError as exc:
            raise OSError("outer") from exc

    with pytest.raises(CallError) as caught:
        SingleFlight(work).wait(1)

    outer = caught.value.__cause__
    assert outer is not None
    assert outer.__cause__ is not None
    assert outer.__traceback__ is None
    assert outer.__cause__.__traceback__ is None


def test_call_is_repeated_if_its_thread_was_killed(monkeypatch):
    calls = []
    # Python's own hook ignores SystemExit in a thread; pytest's reports it.
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def work():
        calls.append(1)
        if len(calls) == 1:
            # As PyThreadState_SetAsyncExc raises it in a thread that is to be killed.
            raise SystemExit
        return "again"

    assert SingleFlight(work).wait(10) == "again"
    join_threads("lakebase-workspace")


def test_lock_of_the_process_is_not_held_while_a_result_is_locked():
    """A signal handler may need it while its thread holds the lock of a result."""
    gate, got = threading.Event(), []
    single = SingleFlight(lambda: gate.wait(10))
    call = single.start()
    other = threading.Thread(target=lambda: got.append(single.start()))
    with call._condition:  # noqa: SLF001 - as a thread that waits for the result.
        other.start()
        other.join(10)
        is_blocked = other.is_alive()
    gate.set()
    other.join(10)

    assert not is_blocked
    assert got == [call]
