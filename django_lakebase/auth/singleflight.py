"""
Single flight: a slow call that one thread makes for all callers, with time limits.

How it works. The SDK's token request has no timeout, so each call runs in a daemon
thread. Callers that need the result wait for the current call, each for as long as its
own budget allows. After `CALL_TIMEOUT` seconds a call that has not returned is
abandoned, and the next caller starts another.

Invariants. `process.lock` is held only to choose the current call, never while a call
runs or a caller waits. Only the current call reports its result; that of an abandoned
call is ignored. The threads of a call do not exist in a forked child, which therefore
starts a new call.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Generic, TypeVar

from django_lakebase import process
from django_lakebase.failures.classify import scrub, strip_tracebacks

# Seconds after which a call to the workspace is abandoned.
CALL_TIMEOUT = 10.0
# Seconds after which a running, abandoned call no longer keeps another from being
# abandoned.
ABANDONED_LIMIT = 30.0

T = TypeVar("T")


class CallError(Exception):
    """A call returned no result; ``__cause__`` is the reason, without tracebacks."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(scrub(str(cause)))
        self.__cause__ = strip_tracebacks(cause)


class Call(Future[T]):
    """
    The result of a function that runs in a separate daemon thread.

    Cancelled if the thread was killed before the function returned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started_at = time.monotonic()
        self._pid = os.getpid()
        self._has_ended = False
        self._thread: threading.Thread | None = None

    def start(self, function: Callable[[], T]) -> None:
        """Run *function* in a thread, or in this one if no thread can start."""
        thread = threading.Thread(
            target=self._run, args=(function,), name="lakebase-workspace", daemon=True
        )
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is shutting down, or this process may not start threads.
            self._thread = None
            self._run(function)

    def _run(self, function: Callable[[], T]) -> None:
        try:
            try:
                result = function()
            finally:
                # Before a caller gets the result: its next call must be a new one.
                self._has_ended = True
            self.set_result(result)
        except Exception as exc:  # noqa: BLE001 - raised in the waiting callers.
            self.set_exception(strip_tracebacks(exc))
        finally:
            self.cancel()  # No effect on a call that has ended.

    def is_running(self) -> bool:
        """Return whether the function still runs, in this process."""
        # Not done(), which takes the lock of the Future: callers hold `process.lock`.
        return self._pid == os.getpid() and not self._has_ended

    def age(self) -> float:
        """Return the seconds since the start of the call."""
        return time.monotonic() - self.started_at

    def join(self, timeout: float) -> None:
        """Wait until the thread ends, at most *timeout* seconds after its start."""
        thread, is_own = self._thread, self._pid == os.getpid()
        if thread is None or not is_own or thread is threading.current_thread():
            return
        # If the function has returned, the thread is about to end: wait for that, even
        # if the function took longer than *timeout*.
        left = timeout if self._has_ended else timeout - self.age()
        thread.join(max(0.0, left))


class SingleFlight(Generic[T]):
    """
    A slow function that runs in at most one thread at a time, for all callers.

    *prepare* runs in the calling thread before each call. *on_result* gets the result
    and *on_error* the error, before the callers do. Neither runs for an abandoned call.
    A call is abandoned after *call_timeout* seconds, by default `CALL_TIMEOUT`. At most
    one thread is abandoned in any `ABANDONED_LIMIT` seconds.
    """

    def __init__(
        self,
        function: Callable[[], T],
        *,
        prepare: Callable[[], None] = lambda: None,
        on_result: Callable[[T], None] = lambda _: None,
        on_error: Callable[[BaseException], None] = lambda _: None,
        call_timeout: float | None = None,
    ) -> None:
        self._function, self._prepare = function, prepare
        self._on_result, self._on_error = on_result, on_error
        self._call_timeout = call_timeout
        self._call: Call[T] | None = None
        self._abandoned: Call[T] | None = None

    def start(self) -> Call[T]:
        """Return the running call, or start one; never waits."""
        self._prepare()
        with process.lock:
            current = self._call
            if current is not None and current.is_running():
                if current.age() <= self._limit or self._has_abandoned_call():
                    return current
                self._abandoned = current
            call = self._call = Call()
        call.start(lambda: self._run(call))
        return call

    def wait(self, timeout: float) -> T:
        """
        Return the function's result, waiting at most *timeout* seconds.

        Makes the call again if its thread was killed. Raises CallError.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                call = self.start()
            except ImportError as exc:  # From *prepare*.
                raise CallError(exc) from exc
            left = min(deadline - time.monotonic(), self._limit)
            limit = 0.0 if call.age() > self._limit else max(0.0, left)
            try:
                error = call.exception(limit)
            except CancelledError:
                continue
            except TimeoutError:
                error = TimeoutError(f"no answer within {call.age():.0f} s")
            if error is not None:
                raise CallError(error)
            return call.result()

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

    @property
    def _limit(self) -> float:
        return CALL_TIMEOUT if self._call_timeout is None else self._call_timeout

    def _has_abandoned_call(self) -> bool:
        call = self._abandoned
        return call is not None and call.is_running() and call.age() < ABANDONED_LIMIT

    def _run(self, call: Call[T]) -> T:
        try:
            result = self._function()
        except Exception as exc:
            if self._call is call:
                self._on_error(exc)
            raise
        if self._call is call:
            self._on_result(result)
        return result
