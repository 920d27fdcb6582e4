"""
The connector: opens one connection, with a pinned credential and retries.

How it works. Each attempt pins one credential and passes its token as a string, so the
connector knows which token was rejected. The failure table names an action for each
failure. The connector replaces an action that is not possible, the retry policy decides
whether and when it is allowed, and the connector carries it out. If the failure is an
unknown host, the connector first checks whether the endpoint has moved to another host.
An attempt uses the shortcuts of `tls`, and is repeated at once without them if the
server has not answered; only the error of the repetition counts.

Invariants. No frame that survives holds a token: attempts are made in functions that
return an error without its traceback instead of raising it. A connector opens one
connection in one thread and needs no lock; what threads share is in
`django_lakebase.auth`, which does its own locking.
"""

import re
import time
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import psycopg

from django_lakebase import events
from django_lakebase.auth.credentials import Credential
from django_lakebase.auth.registry import endpoint_of
from django_lakebase.auth.singleflight import CallError
from django_lakebase.auth.strategies import auth_for
from django_lakebase.config.libpq import MIN_CONNECT_TIMEOUT
from django_lakebase.config.target import Target
from django_lakebase.exceptions import ExplainedError
from django_lakebase.failures.classify import classify, retry_after, strip_tracebacks
from django_lakebase.failures.failure import Action, Failure, Source

from . import tls
from .errors import connect_error
from .liveness import Connection, record_lifetime
from .params import Params, drop_rejected_timezone
from .retry import RetryPolicy

ConnectFunction: TypeAlias = Callable[[Params], Connection]
# Takes the seconds to wait, and the error of the last attempt with its row.
PauseFunction: TypeAlias = Callable[[float, BaseException, Failure], object]
T = TypeVar("T")

# In messages of the server, and in no message of libpq.
_SEVERITY = re.compile(r"\b(FATAL|ERROR|PANIC):")


def attempt(connect: ConnectFunction, params: Params) -> Connection | BaseException:
    """Call *connect* once; return its error without frames, which hold secrets."""
    try:
        return connect(params)
    except Exception as exc:  # noqa: BLE001 - the caller raises it.
        return strip_tracebacks(exc)


def _has_answered(outcome: Connection | BaseException) -> bool:
    """Return whether the server has sent a message: TLS has worked."""
    if not isinstance(outcome, psycopg.OperationalError) or outcome.sqlstate:
        return True
    used_password = getattr(outcome.pgconn, "used_password", False)
    return bool(used_password or _SEVERITY.search(str(outcome)))


def _may_be_due_to(shortcuts: Params, outcome: Connection | BaseException) -> bool:
    """Return whether the attempt may have failed because of *shortcuts*."""
    if not shortcuts or _has_answered(outcome):
        return False
    # Only direct TLS makes a server silent, and limits the time of the attempt.
    is_timeout = isinstance(outcome, psycopg.errors.ConnectionTimeout)
    return "sslnegotiation" in shortcuts or not is_timeout


def _sleep(seconds: float, error: BaseException, failure: Failure) -> None:
    time.sleep(seconds)


class Connector:
    """
    Opens one connection to *target*, with retries.

    *connect* makes one attempt with the parameters that it gets. *pause* waits between
    two attempts. *credential* is used instead of the cached one; if the login succeeds,
    it is cached.
    """

    def __init__(
        self,
        target: Target,
        params: Params,
        connect: ConnectFunction,
        *,
        pause: PauseFunction = _sleep,
        credential: Credential | None = None,
    ) -> None:
        self._target, self._params, self._connect = target, dict(params), connect
        self._auth, self._pause = auth_for(target, credential), pause
        self._host, self._attempts, self._started = target.host, 0, time.monotonic()
        self._last_workspace_error: BaseException | None = None
        self._policy: RetryPolicy

    def run(self) -> Connection:
        """Return the open connection; raises LakebaseError."""
        try:
            connection = self._until_done(self._attempt)
        except ExplainedError as exc:
            events.connection_failed(self, self._event(), failure_id=exc.failure_id)
            raise
        self._auth.accept()
        expires_at = self._auth.expires_at
        if expires_at is not None:
            record_lifetime(connection, expires_at)
        events.connection_opened(self, self._event(), expires_at=expires_at)
        return connection

    def warm(self) -> None:
        """Fetch what connecting needs from the workspace; raises LakebaseError."""
        self._until_done(self._pinned_params)

    def _until_done(self, step: Callable[[], T | BaseException]) -> T:
        """Return the result of *step*, repeating it after an error if that may help."""
        self._auth.prepare()
        self._policy = RetryPolicy(self._target.connect_budget)
        while True:
            self._attempts += 1
            outcome = step()
            if not isinstance(outcome, BaseException):
                return outcome
            self._prepare_next(outcome)

    def _event(self) -> events.ConnectEvent:
        """Return the progress so far, for signals and logs."""
        target = self._target
        return events.ConnectEvent(
            alias=target.alias,
            endpoint=endpoint_of(target),
            host=self._host,
            port=target.port,
            database=target.database or "postgres",
            attempts=self._attempts,
            seconds=time.monotonic() - self._started,
        )

    def _attempt(self) -> Connection | BaseException:
        params = self._pinned_params()
        if isinstance(params, BaseException):
            return params
        server = tls.server_of(self._target, self._host)
        shortcuts, started = server.shortcuts(), time.monotonic()
        outcome = attempt(self._connect, {**params, **shortcuts})
        if _may_be_due_to(shortcuts, outcome):
            failed, started = outcome, time.monotonic()
            if isinstance(failed, psycopg.errors.ConnectionTimeout):
                server.pause_direct()
            params["connect_timeout"] = self._connect_timeout(self._policy.left())
            outcome = attempt(self._connect, params)
            # A server that is slow without them has not rejected the shortcuts.
            is_slow = time.monotonic() - started >= tls.DIRECT_TIMEOUT
            if _has_answered(outcome) and not is_slow:
                server.reject(shortcuts, failed)
        if not isinstance(outcome, BaseException):
            server.record_success(time.monotonic() - started)
        return outcome

    def _pinned_params(self) -> Params | BaseException:
        """Return the parameters with the values of this attempt, or the error."""
        seconds = self._connect_timeout(self._policy.left())
        params = {**self._params, "connect_timeout": seconds}
        try:
            for name, getter in self._auth.getters.items():
                params[name] = getter(self._policy.left())
        except CallError as exc:
            return strip_tracebacks(exc)
        self._host = str(params.get("host") or "")
        return params

    def _connect_timeout(self, left: float) -> int:
        limit = self._target.connect_timeout
        # As in libpq, 0 or less means no limit.
        seconds = min(limit, left) if limit and limit > 0 else left
        return max(MIN_CONNECT_TIMEOUT, int(seconds))

    def _prepare_next(self, error: BaseException) -> None:
        """Prepare the next attempt, or raise the error for the caller."""
        if isinstance(error, CallError):
            self._wait_for_workspace(error.__cause__ or error)
            return
        is_failed_connect = isinstance(error, psycopg.Error) and error.sqlstate is None
        if not is_failed_connect:
            # Not a failed connect, but for example a bad isolation level, or SQL after
            # the login.
            raise error
        failure, left = self._auth.classify(error), self._policy.left()
        is_retried = drop_rejected_timezone(self._target, self._params, error) or (
            failure.id == "wrong-host" and self._auth.has_moved(self._host, left)
        )
        if is_retried:
            self._retry(error, failure, Action.RETRY, 0.0)
            return
        action, pause = self._policy.next(self._action_for(failure, error))
        is_useless = action is Action.REFRESH and not self._auth.drop_rejected()
        if action is Action.FAIL or is_useless:
            raise self._error(error, failure)
        self._retry(error, failure, action, pause)

    def _wait_for_workspace(self, error: BaseException) -> None:
        """Wait until the workspace can be called again, or raise the error."""
        if isinstance(error, TimeoutError) and self._policy.left() <= 0:
            # The budget ended before a response: the previous error is the reason.
            error = self._last_workspace_error or error
        self._last_workspace_error = error
        failure = classify(error, Source.WORKSPACE)
        action, pause = self._policy.next(failure.action, at_least=retry_after(error))
        if action is not Action.RETRY:
            raise self._error(error, failure)
        self._retry(error, failure, action, pause)

    def _retry(
        self, error: BaseException, failure: Failure, action: Action, pause: float
    ) -> None:
        """Report that another attempt follows, and wait until then."""
        events.connection_retried(
            self,
            self._event(),
            failure_id=failure.id,
            action=action,
            pause=pause,
        )
        self._pause(pause, error, failure)

    def _action_for(self, failure: Failure, error: BaseException) -> Action:
        """Return the action of *failure*, or what an unknown failure needs."""
        if failure.action is not Action.PROBE:
            return failure.action
        # If a password was used, the server may have rejected the token: try a new one.
        # Otherwise the server may be starting up, and say so in another language.
        used_password = getattr(getattr(error, "pgconn", None), "used_password", False)
        if used_password and self._auth.probe(self._policy.left()):
            return Action.PROBE
        is_from_server = "connection to server" in str(error)
        return Action.RETRY_BRIEFLY if is_from_server else Action.FAIL

    def _error(self, error: BaseException, failure: Failure) -> ExplainedError:
        """Return the error for the caller."""
        left = max(0.0, self._policy.left())
        failure, facts = self._auth.explain(failure, left)
        return connect_error(self._target, error, failure, seen=error, **facts)
