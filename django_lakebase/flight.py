"""
A slow call that one thread makes for all, and that nobody waits for too long.

The SDK's token request has no timeout of its own, so a call runs in a daemon thread:
its callers wait as long as they can afford, then leave it behind.
"""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .forks import in_child

# Seconds that one call to the workspace may take.
CALL_BOUND = 10.0
# Seconds after which an unanswered call no longer keeps a new one from starting.
ABANDONED_FOR = 30.0

T = TypeVar("T")


class FlightError(Exception):
    """The call gave no result; the cause says why."""


class _Call(Generic[T]):
    """One run of a function in a thread of its own."""

    def __init__(self, work: Callable[["_Call[T]"], T]) -> None:
        self.started = time.monotonic()
        self.done = threading.Event()
        self.has_result = False
        self.result: T
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(
            target=self._run, name="lakebase-workspace", daemon=True
        )

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:
            # The interpreter is ending, or this process may start no threads: the
            # caller does the work itself.
            self._run()

    def _run(self) -> None:
        try:
            self.result = self._work(self)
            self.has_result = True
        except Exception as exc:  # noqa: BLE001 - the waiting callers raise it.
            self.error = without_frames(exc)
        finally:
            self.done.set()

    def join(self, timeout: float) -> None:
        """Wait until the thread ends, *timeout* seconds after its start at most."""
        # An inline run has no thread, and a thread cannot wait for itself.
        if self._thread.ident is None or self._thread is threading.current_thread():
            return
        # One that is done is about to end, however long its work took.
        left = timeout if self.done.is_set() else timeout - self.age()
        self._thread.join(max(0.0, left))

    def is_running(self) -> bool:
        was_killed = self._thread.ident is not None and not self._thread.is_alive()
        return not self.done.is_set() and not was_killed

    def age(self) -> float:
        return time.monotonic() - self.started


def without_frames(exc: BaseException) -> BaseException:
    """Cut the tracebacks of *exc* and its causes: SDK frames hold client secrets."""
    link: BaseException | None = exc
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return exc


class SingleFlight(Generic[T]):
    """
    A slow function that at most one thread runs at a time, whoever asks.

    *prepare* runs in the caller before a thread is started. *landed* gets a result
    and returns the one that callers get, *failed* gets the error; neither is called
    for a run that was abandoned. A run is abandoned when it has not come back within
    `CALL_BOUND` seconds; only one such thread is left behind in any `ABANDONED_FOR`
    seconds.
    """

    def __init__(
        self,
        work: Callable[[], T],
        *,
        prepare: Callable[[], None],
        landed: Callable[[T], T] = lambda result: result,
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._work, self._prepare = work, prepare
        self._landed, self._failed = landed, failed
        self.reset_after_fork()
        _flights.add(self)

    def reset_after_fork(self) -> None:
        """Forget the parent's lock and its thread, which a child does not have."""
        # Reentrant: a signal handler may fork, and so start a call, while this very
        # thread holds it. At worst that makes one call too many.
        self._lock = threading.RLock()
        self._call: _Call[T] | None = None
        self._abandoned: _Call[T] | None = None

    def start(self) -> _Call[T]:
        """Return the running call, or start one; never waits."""
        self._prepare()
        with self._lock:
            call = self._call
            if call is not None and call.is_running():
                if call.age() <= CALL_BOUND or self._has_left_one_behind():
                    return call
                self._abandoned = call
            call = self._call = _Call(self._fly)
        call.start()
        return call

    def wait(self, timeout: float) -> T:
        """
        Return the function's result, waiting *timeout* seconds at most.

        A run whose thread was killed is made again. Raises `FlightError` with the
        reason as its cause.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                call = self.start()
            except ImportError as exc:  # From *prepare*.
                raise FlightError from without_frames(exc)
            left = min(deadline - time.monotonic(), CALL_BOUND)
            bound = 0.0 if call.age() > CALL_BOUND else max(0.0, left)
            if not call.done.wait(bound):
                cause = TimeoutError(f"no answer within {call.age():.0f} s")
                raise FlightError from cause
            if call.error is not None:
                raise FlightError from call.error
            if call.has_result:
                return call.result

    def join(self, timeout: float) -> None:
        """
        Wait until the thread of the latest call has ended, as a fork needs it.

        *timeout* is in seconds since the call started, so that a call that hangs does
        not cost every caller as much. Returns at once inside of that thread.
        """
        call = self._call
        if call is not None:
            call.join(timeout)

    def is_running(self) -> bool:
        """Return whether the latest call is running."""
        call = self._call
        return call is not None and call.is_running()

    def _has_left_one_behind(self) -> bool:
        behind = self._abandoned
        return (
            behind is not None and behind.is_running() and behind.age() < ABANDONED_FOR
        )

    def _fly(self, mine: _Call[T]) -> T:
        try:
            result = self._work()
        except Exception as exc:
            if self._call is mine:
                self._failed(exc)
            raise
        return self._landed(result) if self._call is mine else result


_flights: "weakref.WeakSet[SingleFlight[Any]]" = weakref.WeakSet()


@in_child
def _reset_after_fork() -> None:
    for flight in list(_flights):
        flight.reset_after_fork()
