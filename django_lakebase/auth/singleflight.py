"""
Single flight: a slow call that one thread makes for all callers, with time limits.

How it works. The SDK's token request has no timeout, so each call runs in a daemon
thread. Callers that need the result wait for the current call, each for as long as its
own budget allows. After `CALL_TIMEOUT` seconds a call that has not returned is
abandoned, and the next caller starts another.

Invariants. `_lock` is held only to choose the current call, never while a call runs or
a caller waits. Only the current call reports its result; that of an abandoned call is
ignored. A forked child starts with a new lock and without calls.
"""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django_lakebase.failures.classify import strip_tracebacks
from django_lakebase.fork import run_in_child

# Seconds after which a call to the workspace is abandoned.
CALL_TIMEOUT = 10.0
# Seconds after which a running, abandoned call no longer keeps another from being
# abandoned.
ABANDONED_LIMIT = 30.0

T = TypeVar("T")


class CallError(Exception):
    """The call returned no result; ``__cause__`` is the reason."""


class _Call(Generic[T]):
    """One run of a function in a separate thread, and its result."""

    def __init__(self, function: Callable[["_Call[T]"], T]) -> None:
        self.started = time.monotonic()
        self.done = threading.Event()
        self.has_result = False
        self.result: T
        self.error: BaseException | None = None
        self._function = function
        self._thread = threading.Thread(
            target=self._run, name="lakebase-workspace", daemon=True
        )

    def start(self) -> None:
        try:
            self._thread.start()
        except RuntimeError:
            # The interpreter is shutting down, or this process may not start threads.
            # Run the function in the calling thread.
            self._run()

    def _run(self) -> None:
        try:
            self.result = self._function(self)
            self.has_result = True
        except Exception as exc:  # noqa: BLE001 - raised in the waiting callers.
            self.error = strip_tracebacks(exc)
        finally:
            self.done.set()

    def join(self, timeout: float) -> None:
        """Wait until the thread ends, at most *timeout* seconds after its start."""
        # A run in the calling thread has no thread to join, and no thread can join
        # itself.
        if self._thread.ident is None or self._thread is threading.current_thread():
            return
        # If the function has returned, the thread is about to end: wait for that, even
        # if the function took longer than *timeout*.
        left = timeout if self.done.is_set() else timeout - self.age()
        self._thread.join(max(0.0, left))

    def is_running(self) -> bool:
        was_killed = self._thread.ident is not None and not self._thread.is_alive()
        return not self.done.is_set() and not was_killed

    def age(self) -> float:
        return time.monotonic() - self.started


class SingleFlight(Generic[T]):
    """
    A slow function that runs in at most one thread at a time, for all callers.

    *prepare* runs in the calling thread before each call. *on_result* gets the result
    and returns what callers get; *on_error* gets the error. Neither runs for an
    abandoned call. At most one thread is abandoned in any `ABANDONED_LIMIT` seconds.
    """

    def __init__(
        self,
        function: Callable[[], T],
        *,
        prepare: Callable[[], None],
        on_result: Callable[[T], T] = lambda result: result,
        on_error: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._function, self._prepare = function, prepare
        self._on_result, self._on_error = on_result, on_error
        self.reset_after_fork()
        _instances.add(self)

    def reset_after_fork(self) -> None:
        """Replace the lock and forget the calls: their threads are the parent's."""
        # Reentrant, because a signal handler may fork, which may start a call, while
        # this thread holds the lock. At worst, one call too many is made.
        self._lock = threading.RLock()
        self._call: _Call[T] | None = None
        self._abandoned: _Call[T] | None = None

    def start(self) -> _Call[T]:
        """Return the running call, or start one; never waits."""
        self._prepare()
        with self._lock:
            call = self._call
            if call is not None and call.is_running():
                if call.age() <= CALL_TIMEOUT or self._has_abandoned_call():
                    return call
                self._abandoned = call
            call = self._call = _Call(self._run)
        call.start()
        return call

    def wait(self, timeout: float) -> T:
        """
        Return the function's result, waiting at most *timeout* seconds.

        Makes the call again if its thread was killed. Raises `CallError` with the
        reason as its cause.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                call = self.start()
            except ImportError as exc:  # From *prepare*.
                raise CallError from strip_tracebacks(exc)
            left = min(deadline - time.monotonic(), CALL_TIMEOUT)
            limit = 0.0 if call.age() > CALL_TIMEOUT else max(0.0, left)
            if not call.done.wait(limit):
                cause = TimeoutError(f"no answer within {call.age():.0f} s")
                raise CallError from cause
            if call.error is not None:
                raise CallError from call.error
            if call.has_result:
                return call.result

    def join(self, timeout: float) -> None:
        """
        Wait until the thread of the latest call has ended; for use before a fork.

        Waits at most until *timeout* seconds after the start of the call, so that a
        hanging call delays only the first caller. Does not wait if called from that
        thread.
        """
        call = self._call
        if call is not None:
            call.join(timeout)

    def is_running(self) -> bool:
        """Return whether the latest call is running."""
        call = self._call
        return call is not None and call.is_running()

    def _has_abandoned_call(self) -> bool:
        call = self._abandoned
        return call is not None and call.is_running() and call.age() < ABANDONED_LIMIT

    def _run(self, call: _Call[T]) -> T:
        try:
            result = self._function()
        except Exception as exc:
            if self._call is call:
                self._on_error(exc)
            raise
        return self._on_result(result) if self._call is call else result


_instances: "weakref.WeakSet[SingleFlight[Any]]" = weakref.WeakSet()


@run_in_child
def _reset_after_fork() -> None:
    for instance in list(_instances):
        instance.reset_after_fork()
