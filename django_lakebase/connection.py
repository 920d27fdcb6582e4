"""
Connections that bring their own password.

Theory of operation. Parameters hold small objects in the place of the password, and
of a host or user that only the workspace knows: psycopg renders them when a physical
connection is opened, so whoever took the parameters once connects with a current
token for ever. Our own path *pins* instead: it takes one credential, passes its token
as a string for this attempt, and so knows which one was refused and when the
connection's own expires.

Rules of this file. A token is in no frame that survives: attempts are made in a
method that returns an error instead of raising it, without its traceback. What is
raised is a LakebaseError with the original as its cause.
"""

import contextlib
import select
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import psycopg
from django.db import OperationalError, connections

from . import events
from .config import Target
from .credentials import Credential, CredentialError, utc_now
from .errors import (
    Explained,
    Known,
    SettingsError,
    chain,
    explain,
    explained,
    retry_after,
    table,
)
from .flight import FlightError, without_frames
from .kinds import Failure, Source, Then
from .ladder import Ladder
from .workspace import access_to, import_sdk

# The shortest connect_timeout that libpq takes, in seconds.
SHORTEST_TIMEOUT = 2
TIMEZONE_OPTION = "-c TimeZone="
_TIMEZONE_REFUSED = ("unsupported startup parameter", 'for parameter "TimeZone"')

Connection: TypeAlias = psycopg.Connection[Any]
Params: TypeAlias = dict[str, Any]
T = TypeVar("T")
Opener: TypeAlias = Callable[[Params], Connection]


class LakebaseError(Explained, OperationalError):
    """
    A connection could not be had; the text says why and how that is mended.

    ``__cause__`` is the original error, ``failure_id`` the row of docs/errors.md.
    """


def refusal(
    target: Target, cause: BaseException, failure: Failure, **facts: object
) -> Explained:
    """Return the error to raise, with *cause* cut loose from its frames."""
    known = next((link for link in chain(cause) if isinstance(link, Known)), None)
    if known is not None:
        facts = {**facts, "seen": known.seen, **known.facts}
    is_static = failure.source is Source.SETTINGS
    kind: type[Explained] = SettingsError if is_static else LakebaseError
    error = explained(kind, failure, target.label, target.facts(**facts))
    error.__cause__ = without_frames(cause)
    return error


def ask_workspace(target: Target, ask: Callable[[], T]) -> T:
    """Return what *ask* returns; raises LakebaseError where the workspace fails."""
    try:
        return ask()
    except (CredentialError, FlightError) as exc:
        cause = exc.__cause__ or exc
    raise refusal(target, cause, explain(cause, Source.WORKSPACE), seen=cause)


def attempt(opener: Opener, params: Params) -> Connection | BaseException:
    """Try once; an error is returned, for frames from here on hold secrets."""
    try:
        return opener(params)
    except Exception as exc:  # noqa: BLE001 - raised again, without frames.
        return without_frames(exc)


class LazyValue:
    """
    A connection parameter that is asked for when psycopg renders it with str().

    Its repr tells nothing. A copy is the object itself; unpickled, it belongs to the
    alias of the same name in that process.
    """

    __slots__ = ("_ask", "_parameter", "_target")

    def __init__(
        self, parameter: str, target: Target, ask: Callable[[float], str]
    ) -> None:
        self._parameter, self._target, self._ask = parameter, target, ask

    def __str__(self) -> str:
        return ask_workspace(
            self._target, lambda: self._ask(self._target.connect_budget)
        )

    def __repr__(self) -> str:
        return f"<{self._parameter} of {self._target.label}, asked for when used>"

    def __copy__(self) -> "LazyValue":
        return self

    def __deepcopy__(self, memo: object) -> "LazyValue":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (self._target.alias, self._parameter)


def _revive(alias: str, parameter: str) -> object:
    return connections[alias].get_connection_params()[parameter]


def lazy_params(target: Target) -> Params:
    """Return the objects that stand for what only the workspace knows; no I/O."""
    if target.is_native:
        return {}
    access = access_to(target)
    params: Params = {
        "password": LazyValue(
            "password", target, lambda seconds: access.credentials.get(seconds).token
        )
    }
    if not target.host:
        params["host"] = LazyValue("host", target, access.host.get)
    if not target.user:
        params["user"] = LazyValue("user", target, access.user.get)
    return params


def resolve_host(target: Target) -> str:
    """Return the host, asking the workspace if it must; raises LakebaseError."""
    return str(lazy_params(target).get("host", target.host))


def resolve_user(target: Target) -> str:
    """Return the user, asking the workspace if it must; raises LakebaseError."""
    return str(lazy_params(target).get("user", target.user))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """When a connection was opened and when its credential expires (UTC)."""

    opened_at: datetime
    expires_at: datetime


_leases: "weakref.WeakKeyDictionary[Connection, Lease]" = weakref.WeakKeyDictionary()
# Targets whose server or proxy takes no time zone in the startup packet.
_without_timezone: set[Target] = set()


def lease_of(connection: Connection) -> Lease | None:
    """Return what is known of *connection*'s credential; None for a native login."""
    return _leases.get(connection)


def is_readable(connection: Connection) -> bool:
    """
    Return whether the server has sent something that nobody has read; no I/O.

    On an idle connection that is a farewell, mostly: it was suspended, restarted or
    terminated. A connection that is closed already counts too.
    """
    if connection.closed:
        return True
    descriptor = connection.fileno()
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def takes_timezone(target: Target) -> bool:
    """Whether the startup packet may carry the time zone, as far as we know."""
    return target not in _without_timezone


class Opening:
    """
    The opening of one connection to *target*, with its retries.

    *opener* makes one attempt with the parameters that it is given. With *credential*
    that one is used and no other; it is kept for all if the login succeeds.
    """

    def __init__(
        self,
        target: Target,
        params: Params,
        opener: Opener,
        *,
        patient: bool = True,
        credential: Credential | None = None,
    ) -> None:
        self._target, self._params, self._opener = target, params, opener
        self._access = None if target.is_native else access_to(target)
        self._credential: Credential | None = None
        self._probed = credential
        self._host = ""
        self._answer: BaseException | None = None
        self._started, self._attempts = time.monotonic(), 0
        self._load_sdk()
        self._ladder = Ladder(target.connect_budget, patient=patient)

    def _load_sdk(self) -> None:
        # Once in a process, before the budget begins: on a busy machine it takes long,
        # and an error would name the workspace, which nobody has asked yet.
        if self._access is not None and self._access.credentials.ready() is None:
            with contextlib.suppress(ImportError):  # The attempt says so.
                import_sdk()

    def run(self) -> Connection:
        """Return the open connection; raises LakebaseError."""
        while True:
            self._attempts += 1
            outcome = self._attempt()
            if not isinstance(outcome, BaseException):
                return self._opened(outcome)
            self._next(outcome)

    def _opened(self, connection: Connection) -> Connection:
        credential, expires_at = self._probed or self._credential, None
        if credential is not None:
            if self._probed is not None and self._access is not None:
                self._access.credentials.adopt(self._probed)
            expires_at = credential.expires_at
            _leases[connection] = Lease(opened_at=utc_now(), expires_at=expires_at)
        events.connection_opened(self._told(), expires_at=expires_at)
        return connection

    def _told(self) -> events.Connect:
        """Return how far the opening has come."""
        target = self._target
        return events.Connect(
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
            params = self._pinned()
        except (CredentialError, FlightError) as exc:
            return without_frames(exc)
        return attempt(self._opener, params)

    def _pinned(self) -> Params:
        """Return the parameters with this attempt's own values in them."""
        left = self._ladder.left()
        params = {**self._params, "connect_timeout": self._connect_timeout(left)}
        access = self._access
        if access is None:
            return params
        if not self._target.host:
            params["host"] = self._host = access.host.get(self._ladder.left())
        if not self._target.user:
            params["user"] = access.user.get(self._ladder.left())
        credential = self._probed
        if credential is None:
            credential = access.credentials.get(self._ladder.left())
            self._credential = credential
        return {**params, "password": credential.token}

    def _connect_timeout(self, left: float) -> int:
        own = self._params.get("connect_timeout")
        seconds = left if not own else min(float(own), left)
        return max(SHORTEST_TIMEOUT, int(seconds))

    def _next(self, error: BaseException) -> None:
        """Prepare the next attempt, or raise why there is none."""
        if isinstance(error, (CredentialError, FlightError)):
            self._wait_for_workspace(error.__cause__ or error)
            return
        is_refused_login = isinstance(error, psycopg.Error) and error.sqlstate is None
        if not is_refused_login:
            # Not about connecting: a bad isolation level, SQL after the login.
            raise error
        if self._retry_without_timezone(error):
            return
        failure = explain(error, Source.SERVER, native=self._target.is_native)
        if failure.id == "wrong-host" and self._has_moved():
            return
        then, pause = self._ladder.next(self._what_then(failure, error))
        if then is Then.STOP or (then is Then.RENEW and not self._renew()):
            raise self._refusal(error, Source.SERVER)
        events.connection_retried(
            self._told(), failure_id=failure.id, then=then, pause=pause
        )
        time.sleep(pause)

    def _wait_for_workspace(self, error: BaseException) -> None:
        """Wait until it may be asked again; raises where that is of no use."""
        if isinstance(error, TimeoutError) and self._ladder.left() <= 0:
            # The time is up before this answer: the one before says why.
            error = self._answer or error
        self._answer = error
        failure = explain(error, Source.WORKSPACE)
        then, pause = self._ladder.next(failure.then, at_least=retry_after(error))
        if then is not Then.WAIT:
            raise self._refusal(error, Source.WORKSPACE)
        events.connection_retried(
            self._told(), failure_id=failure.id, then=then, pause=pause
        )
        time.sleep(pause)

    def _has_moved(self) -> bool:
        """Return whether the workspace names another host than the one just tried."""
        if self._access is None or not self._host:
            return False
        host = self._access.host
        host.doubt()
        # The old answer serves where there is no new one.
        return host.get(self._ladder.left()) != self._host

    def _what_then(self, failure: Failure, error: BaseException) -> Then:
        """Return what *failure* asks for, where that can be done here."""
        if failure.then is Then.PROBE:
            return self._about_the_unknown(error)
        if failure.then is Then.RENEW and self._probed is not None:
            return Then.STOP
        return failure.then

    def _about_the_unknown(self, error: BaseException) -> Then:
        # The token may be meant, so a new one is tried. Else it may be a server that
        # starts, and says so in its own language.
        used_password = getattr(getattr(error, "pgconn", None), "used_password", False)
        if used_password and self._probed is None and self._probe():
            return Then.PROBE
        is_the_servers = "connection to server" in str(error)
        return Then.WAIT_BRIEFLY if is_the_servers else Then.STOP

    def _renew(self) -> bool:
        """Drop the refused credential; return whether there was one."""
        access, refused = self._access, self._credential
        if access is None or refused is None:
            return False
        access.credentials.drop(refused)
        return True

    def _probe(self) -> bool:
        """Have a newly issued credential for the next attempt; return whether so."""
        if self._access is None:
            return False
        with contextlib.suppress(CredentialError):
            self._probed = self._access.credentials.probe(self._ladder.left())
        return self._probed is not None

    def _retry_without_timezone(self, error: BaseException) -> bool:
        options = str(self._params.get("options") or "")
        is_refused = any(words in str(error) for words in _TIMEZONE_REFUSED)
        if not is_refused or TIMEZONE_OPTION not in options:
            return False
        own = options.rpartition(TIMEZONE_OPTION)[0].strip()
        self._params = {**self._params, "options": own}
        _without_timezone.add(self._target)
        return True

    def _refusal(self, error: BaseException, source: Source) -> Exception:
        target, access, credential = self._target, self._access, self._credential
        failure = explain(error, source, native=target.is_native)
        facts: dict[str, object] = {"seen": error}
        if access is not None:
            facts["host"] = target.host or access.host.value
            facts["user"] = target.user or access.user.value
            if failure.id == "waking":
                access.host.doubt()
        if failure.then is Then.RENEW and credential is not None and credential.skew():
            failure, facts["skew"] = table()["clock-skew"], credential.skew()
        known = {name: fact for name, fact in facts.items() if fact}
        explained_error = refusal(target, error, failure, **known)
        events.connection_failed(self._told(), failure_id=explained_error.failure_id)
        return explained_error
