"""
Single flight: a slow call that one thread makes for all callers, with time limits.

How it works. The SDK's token request has no timeout, so the call runs in a daemon
thread: callers wait as long as their budget allows and then abandon it. The lock
protects only the choice of the current call; it is never held while a call runs.
"""

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django_lakebase.failures.classify import strip_tracebacks
from django_lakebase.fork import run_in_child

# Seconds that one call to the workspace may take.
CALL_TIMEOUT = 10.0
# Seconds after which an unanswered, abandoned call no longer blocks a new one.
ABANDONED_LIMIT = 30.0

T = TypeVar("T")


class CallError(Exception):
    """The call returned no result; ``__cause__`` is the reason."""


class _Call(Generic[T]):
    """One run of a function in a separate thread."""

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
            # The interpreter is shutting down, or this process may not start threads:
            # run the function in the calling thread.
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
        # An inline run has no thread, and a thread cannot join itself.
        if self._thread.ident is None or self._thread is threading.current_thread():
            return
        # After the function has returned, the thread ends at once: wait for that even
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

    *prepare* runs in the calling thread before a thread is started. *on_result* gets
    the result and returns what callers get, *on_error* gets the error; neither runs
    for an abandoned call. A call is abandoned after `CALL_TIMEOUT` seconds; at most
    one abandoned thread is left behind in any `ABANDONED_LIMIT` seconds.
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
        """Replace the parent's lock and forget its thread, which a child lacks."""
        # Reentrant: a signal handler may fork, and so start a call, while this very
        # thread holds the lock. At worst that makes one call too many.
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

        If the thread was killed, the call is made again. Raises `CallError` with the
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
        Wait until the thread of the latest call has ended, as a fork requires.

        *timeout* is in seconds since the call started, so that a hanging call delays
        only the first caller. Returns at once if called from that thread.
        """
        call = self._call
        if call is not None:
            call.join(timeout)

    def _has_abandoned_call(self) -> bool:
        call = self._abandoned
        return call is not None and call.is_running() and call.age() < ABANDONED_LIMIT

    def _run(self, own: _Call[T]) -> T:
        try:
            result = self._function()
        except Exception as exc:
            if self._call is own:
                self._on_error(exc)
            raise
        return self._on_result(result) if self._call is own else result


_instances: "weakref.WeakSet[SingleFlight[Any]]" = weakref.WeakSet()


@run_in_child
def _reset_after_fork() -> None:
    for instance in list(_instances):
        instance.reset_after_fork()
