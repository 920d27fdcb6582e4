"""
The opening of one connection: one credential pinned for each attempt, and the retries.

The ladder decides what follows a failed attempt; this obeys, and finds out what the
ladder must know: whether a password was used, whether the endpoint has moved.
"""

import contextlib
import time

import psycopg

from . import events
from .config import Target
from .connection import (
    Connection,
    Opener,
    Params,
    attempt,
    note_lease,
    refusal,
)
from .credentials import Credential, CredentialError
from .errors import explain, retry_after, table
from .flight import FlightError, without_frames
from .kinds import Failure, Source, Then
from .ladder import Ladder
from .workspace import Access, access_to, import_sdk

# The shortest connect_timeout that libpq takes, in seconds.
SHORTEST_TIMEOUT = 2
TIMEZONE_OPTION = "-c TimeZone="
_TIMEZONE_REFUSED = ("unsupported startup parameter", 'for parameter "TimeZone"')

# What a server may say of a user that is not the identity of the login.
_ABOUT_THE_USER = ("role-missing", "wrong-user", "token-refused")

# Targets whose server or proxy takes no time zone in the startup packet.
_without_timezone: set[Target] = set()


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

    def warm(self) -> None:
        """Fetch all that connecting needs from the workspace; raises LakebaseError."""
        while True:
            try:
                self._pinned()
            except (CredentialError, FlightError) as exc:
                error = without_frames(exc)
            else:
                return
            self._wait_for_workspace(error.__cause__ or error)

    def _opened(self, connection: Connection) -> Connection:
        credential, expires_at = self._probed or self._credential, None
        if credential is not None:
            if self._probed is not None and self._access is not None:
                self._access.credentials.adopt(self._probed)
            expires_at = credential.expires_at
            note_lease(connection, expires_at)
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
        own = self._target.connect_timeout
        # As in libpq, 0 and less mean "no bound of its own".
        seconds = min(own, left) if own and own > 0 else left
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
        self._wait(failure, then, pause)

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
        self._wait(failure, then, pause)

    def _wait(self, failure: Failure, then: Then, pause: float) -> None:
        """Tell that another attempt follows *failure*, and wait for it."""
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

    def _about_the_user(
        self, access: Access, failure: Failure, facts: dict[str, object]
    ) -> Failure:
        """Return *failure*, or the row for a user that this login cannot be."""
        user, left = self._target.user, max(0.0, self._ladder.left())
        try:
            identity, groups = access.identify(user, left)
        except FlightError:
            return failure
        if user in groups:
            facts["user_type"] = "GROUP"
        if user in ("", identity, *groups):
            return failure
        facts["identity"] = identity
        return table()["user-not-identity"]

    def _refusal(self, error: BaseException, source: Source) -> Exception:
        target, access, credential = self._target, self._access, self._credential
        failure = explain(error, source, native=target.is_native)
        facts: dict[str, object] = {"seen": error}
        if failure.id == "password-refused" and target.is_password_token:
            failure = table()["password-is-token"]
        if access is not None:
            facts["host"] = target.host or access.host.value
            facts["user"] = target.user or access.user.value
            if failure.id == "waking":
                access.host.doubt()
            if failure.id in _ABOUT_THE_USER:
                failure = self._about_the_user(access, failure, facts)
        if failure.then is Then.RENEW and credential is not None and credential.skew():
            failure, facts["skew"] = table()["clock-skew"], credential.skew()
        known = {name: fact for name, fact in facts.items() if fact}
        explained_error = refusal(target, error, failure, **known)
        events.connection_failed(self._told(), failure_id=explained_error.failure_id)
        return explained_error
