"""
The connector: opens one connection, with a pinned credential and retries.

How it works. Each attempt pins one credential and passes its token as a string, so the
connector knows which token was rejected. The failure table names an action for each
failure. The connector replaces an action that is not possible, the retry policy decides
whether and when it is allowed, and the connector carries it out. If the failure is an
unknown host, the connector first checks whether the endpoint has moved to another host.

Invariants. No frame that survives holds a token: attempts are made in functions that
return an error without its traceback instead of raising it. A connector opens one
connection in one thread and needs no lock; what threads share is in `Access`, which
does its own locking. `_without_timezone` is only added to, which is atomic.
"""

import contextlib
import time
from collections.abc import Callable
from typing import TypeAlias

import psycopg

from django_lakebase import events
from django_lakebase.auth.credentials import Credential, CredentialError
from django_lakebase.auth.registry import Access, access_to
from django_lakebase.auth.sdk import import_sdk
from django_lakebase.auth.singleflight import CallError
from django_lakebase.config.target import Target
from django_lakebase.failures.classify import (
    classify,
    failures_by_id,
    retry_after,
    strip_tracebacks,
)
from django_lakebase.failures.failure import Action, Failure, Source

from .errors import connect_error
from .lazy_params import Params
from .liveness import Connection, record_lifetime
from .retry import RetryPolicy

ConnectFunction: TypeAlias = Callable[[Params], Connection]

# The shortest connect_timeout that libpq applies, in seconds.
MIN_CONNECT_TIMEOUT = 2
TIMEZONE_OPTION = "-c TimeZone="
_TIMEZONE_REJECTED = ("unsupported startup parameter", 'for parameter "TimeZone"')

# Failures that may mean that the user is not the identity of the login.
_USER_FAILURES = ("role-missing", "wrong-user", "token-rejected")

# Targets whose server or proxy has rejected the time zone in the startup packet.
_without_timezone: set[Target] = set()


def takes_timezone(target: Target) -> bool:
    """Return False if *target* has rejected the time zone in the startup packet."""
    return target not in _without_timezone


def attempt(connect: ConnectFunction, params: Params) -> Connection | BaseException:
    """Call *connect* once; return its error without frames, which hold secrets."""
    try:
        return connect(params)
    except Exception as exc:  # noqa: BLE001 - the caller raises it.
        return strip_tracebacks(exc)


class Connector:
    """
    Opens one connection to *target*, with retries.

    *connect* makes one attempt with the parameters that it gets. *patient* is passed to
    the `RetryPolicy`. *credential* is used instead of the cached one; if the login
    succeeds, it is cached.
    """

    def __init__(
        self,
        target: Target,
        params: Params,
        connect: ConnectFunction,
        *,
        patient: bool = True,
        credential: Credential | None = None,
    ) -> None:
        self._target, self._params, self._connect = target, params, connect
        self._access = None if target.is_native else access_to(target)
        self._credential: Credential | None = None
        # A newly issued credential that is used instead of the cached one.
        self._probed = credential
        self._host = ""
        self._last_workspace_error: BaseException | None = None
        self._started, self._attempts = time.monotonic(), 0
        self._load_sdk()
        self._policy = RetryPolicy(target.connect_budget, patient=patient)

    def _load_sdk(self) -> None:
        # Done before the budget starts: on a busy machine the import takes long, and a
        # timeout would be blamed on the workspace, which has not been called yet.
        if self._access is not None and self._access.credentials.get_cached() is None:
            with contextlib.suppress(ImportError):  # The first attempt reports it.
                import_sdk()

    def run(self) -> Connection:
        """Return the open connection; raises LakebaseError."""
        while True:
            self._attempts += 1
            outcome = self._attempt()
            if not isinstance(outcome, BaseException):
                return self._opened(outcome)
            self._prepare_next(outcome)

    def warm(self) -> None:
        """Fetch what connecting needs from the workspace; raises LakebaseError."""
        while True:
            try:
                self._pinned_params()
            except (CredentialError, CallError) as exc:
                error = strip_tracebacks(exc)
            else:
                return
            self._wait_for_workspace(error.__cause__ or error)

    def _opened(self, connection: Connection) -> Connection:
        credential, expires_at = self._probed or self._credential, None
        if credential is not None:
            if self._probed is not None and self._access is not None:
                self._access.credentials.adopt(self._probed)
            expires_at = credential.expires_at
            record_lifetime(connection, expires_at)
        events.connection_opened(self._event(), expires_at=expires_at)
        return connection

    def _event(self) -> events.ConnectEvent:
        """Return the progress so far, for signals and logs."""
        target = self._target
        return events.ConnectEvent(
            alias=target.alias,
            endpoint=target.endpoint,
            host=target.host or self._host,
            port=target.port,
            database=target.database or "postgres",
            attempts=self._attempts,
            seconds=time.monotonic() - self._started,
        )

    def _attempt(self) -> Connection | BaseException:
        try:
            params = self._pinned_params()
        except (CredentialError, CallError) as exc:
            return strip_tracebacks(exc)
        return attempt(self._connect, params)

    def _pinned_params(self) -> Params:
        """Return the parameters with the values of this attempt."""
        left = self._policy.left()
        params = {**self._params, "connect_timeout": self._connect_timeout(left)}
        access = self._access
        if access is None:
            return params
        if not self._target.host:
            params["host"] = self._host = access.host.get(self._policy.left())
        if not self._target.user:
            params["user"] = access.user.get(self._policy.left())
        credential = self._probed
        if credential is None:
            credential = access.credentials.get(self._policy.left())
            self._credential = credential
        return {**params, "password": credential.token}

    def _connect_timeout(self, left: float) -> int:
        limit = self._target.connect_timeout
        # As in libpq, 0 or less means no limit.
        seconds = min(limit, left) if limit and limit > 0 else left
        return max(MIN_CONNECT_TIMEOUT, int(seconds))

    def _prepare_next(self, error: BaseException) -> None:
        """Prepare the next attempt, or raise the error for the caller."""
        if isinstance(error, (CredentialError, CallError)):
            self._wait_for_workspace(error.__cause__ or error)
            return
        is_failed_connect = isinstance(error, psycopg.Error) and error.sqlstate is None
        if not is_failed_connect:
            # Not a failed connect, but for example a bad isolation level, or SQL after
            # the login.
            raise error
        if self._retry_without_timezone(error):
            return
        failure = classify(error, Source.SERVER, native=self._target.is_native)
        if failure.id == "wrong-host" and self._has_moved():
            return
        action, pause = self._policy.next(self._action_for(failure, error))
        if action is Action.FAIL or (action is Action.REFRESH and not self._drop()):
            raise self._error(error, Source.SERVER)
        self._wait(failure, action, pause)

    def _wait_for_workspace(self, error: BaseException) -> None:
        """Wait until the workspace can be called again, or raise the error."""
        if isinstance(error, TimeoutError) and self._policy.left() <= 0:
            # The budget ended before a response: the previous error is the reason.
            error = self._last_workspace_error or error
        self._last_workspace_error = error
        failure = classify(error, Source.WORKSPACE)
        action, pause = self._policy.next(failure.action, at_least=retry_after(error))
        if action is not Action.RETRY:
            raise self._error(error, Source.WORKSPACE)
        self._wait(failure, action, pause)

    def _wait(self, failure: Failure, action: Action, pause: float) -> None:
        """Report that another attempt follows *failure*, and sleep until then."""
        events.connection_retried(
            self._event(), failure_id=failure.id, action=action, pause=pause
        )
        time.sleep(pause)

    def _has_moved(self) -> bool:
        """Return whether the workspace now reports another host than the one tried."""
        if self._access is None or not self._host:
            return False
        host = self._access.host
        host.mark_stale()
        # If the workspace cannot be reached, this returns the old host.
        return host.get(self._policy.left()) != self._host

    def _action_for(self, failure: Failure, error: BaseException) -> Action:
        """Return the action of *failure*, or a replacement if it is not possible."""
        if failure.action is Action.PROBE:
            return self._action_for_unknown(error)
        if failure.action is Action.REFRESH and self._probed is not None:
            return Action.FAIL
        return failure.action

    def _action_for_unknown(self, error: BaseException) -> Action:
        # If a password was used, the server may have rejected the token: try a new one.
        # Otherwise the server may be starting up, and say so in another language.
        used_password = getattr(getattr(error, "pgconn", None), "used_password", False)
        if used_password and self._probed is None and self._probe():
            return Action.PROBE
        is_from_server = "connection to server" in str(error)
        return Action.RETRY_BRIEFLY if is_from_server else Action.FAIL

    def _drop(self) -> bool:
        """Drop the rejected credential; return whether there was one."""
        access, rejected = self._access, self._credential
        if access is None or rejected is None:
            return False
        access.credentials.drop(rejected)
        return True

    def _probe(self) -> bool:
        """Get a new credential for the next attempt; return whether there is one."""
        if self._access is None:
            return False
        with contextlib.suppress(CredentialError):
            self._probed = self._access.credentials.probe(self._policy.left())
        return self._probed is not None

    def _retry_without_timezone(self, error: BaseException) -> bool:
        """Remove the time zone if the server rejected it; return whether it did."""
        options = str(self._params.get("options") or "")
        is_rejected = any(text in str(error) for text in _TIMEZONE_REJECTED)
        if not is_rejected or TIMEZONE_OPTION not in options:
            return False
        other_options = options.rpartition(TIMEZONE_OPTION)[0].strip()
        self._params = {**self._params, "options": other_options}
        _without_timezone.add(self._target)
        return True

    def _user_failure(
        self, access: Access, failure: Failure, facts: dict[str, object]
    ) -> Failure:
        """
        Return *failure*, or `user-not-identity` if another identity logs in.

        Adds what it learns to *facts*.
        """
        user, left = self._target.user, max(0.0, self._policy.left())
        try:
            identity, groups = access.identify(user, left)
        except CallError:
            return failure
        if user in groups:
            facts["user_type"] = "GROUP"
        if user in ("", identity, *groups):
            return failure
        facts["identity"] = identity
        return failures_by_id()["user-not-identity"]

    def _error(self, error: BaseException, source: Source) -> Exception:
        """Return the error for the caller, and report that connecting failed."""
        target, access, credential = self._target, self._access, self._credential
        failure = classify(error, source, native=target.is_native)
        facts: dict[str, object] = {"seen": error}
        if failure.id == "password-rejected" and target.is_password_token:
            failure = failures_by_id()["password-is-token"]
        if access is not None:
            facts["host"] = target.host or access.host.value
            facts["user"] = target.user or access.user.value
            if failure.id == "waking":
                access.host.mark_stale()
            if failure.id in _USER_FAILURES:
                failure = self._user_failure(access, failure, facts)
        if (
            failure.action is Action.REFRESH
            and credential is not None
            and credential.describe_clock_skew()
        ):
            failure, facts["skew"] = (
                failures_by_id()["clock-skew"],
                credential.describe_clock_skew(),
            )
        known = {name: fact for name, fact in facts.items() if fact}
        explained_error = connect_error(target, error, failure, **known)
        events.connection_failed(self._event(), failure_id=explained_error.failure_id)
        return explained_error
