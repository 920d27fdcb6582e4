"""
Short-lived database credentials, refreshed for the whole process.

How it works. A `CredentialCache` holds one credential. `get` returns it from memory
while more than a margin of its lifetime is left. At a random point between half and
three quarters of the lifetime, the cache starts one fetch in the background. Callers
wait only when no usable credential is left, and then all of them wait for the same
fetch.

Invariants. The lifetime is what the service reports (*expires_at*), never an
assumption. A failed fetch never discards a credential that is still valid. The token is
never logged or shown.

Locks. The cache has none: its attributes are replaced by single assignments, and a
`SingleFlight` ensures that one fetch at a time stores its result. The only lock is
inside `SingleFlight`, which never holds it during a fetch.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from django_lakebase.failures.classify import retry_after, scrub

from .singleflight import CALL_TIMEOUT, CallError, SingleFlight

logger = logging.getLogger("django_lakebase")

# The longest lifetime that the service issues; a longer one means that a clock is off.
MAX_LIFETIME = timedelta(hours=1)
CLOCK_TOLERANCE = timedelta(minutes=5)
# A credential is fresh while more than this margin is left, or more than this share of
# its lifetime, if that is shorter.
MARGIN = timedelta(seconds=60)
MARGIN_SHARE = 0.1
# Refresh at a random point between these shares of the lifetime, so that processes that
# started together do not refresh in lockstep. An outage can last for the remaining
# quarter before connections fail.
EARLIEST_REFRESH, LATEST_REFRESH = 0.5, 0.75
# Seconds between attempts to refresh in the background: the first pause, doubled after
# each failure up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
# The shortest time between two probes.
PROBE_INTERVAL = timedelta(seconds=30)


def utc_now() -> datetime:
    """Return the current time as an aware datetime in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A token, the time of its receipt and the time of its expiry (aware, UTC)."""

    token: str = field(repr=False)
    issued_at: datetime
    expires_at: datetime

    @property
    def lifetime(self) -> timedelta:
        """The time from the receipt of the token to its expiry."""
        return self.expires_at - self.issued_at

    def left(self, now: datetime) -> timedelta:
        """Return the time until the token expires."""
        return self.expires_at - now

    def is_fresh(self, now: datetime) -> bool:
        """Return whether more than the margin before its expiry is left."""
        return self.left(now) > min(MARGIN, self.lifetime * MARGIN_SHARE)

    def skew(self) -> str:
        """Return the clock skew that an impossible lifetime reveals, as text, or ""."""
        if self.lifetime <= timedelta():
            return (
                f"it expires at {self.expires_at:%H:%M:%S} UTC and was received at "
                f"{self.issued_at:%H:%M:%S} UTC by this machine's clock, which is "
                "ahead of the service's"
            )
        if self.lifetime > MAX_LIFETIME + CLOCK_TOLERANCE:
            return (
                f"it expires in {self.lifetime}, but the service issues tokens for an "
                "hour at most: this machine's clock is behind the service's"
            )
        return ""


class CredentialError(Exception):
    """No credential is available; ``__cause__`` is the reason."""


class CredentialCache:
    """
    The credential of one login for one endpoint, shared by all threads of a process.

    *fetch* gets a new credential from the service and runs in a background thread.
    *prepare* runs in the calling thread before that. *name* identifies the credential
    in logs. *now* (aware, UTC) and *jitter* (0 to 1) are parameters so that tests
    control time and randomness.
    """

    def __init__(
        self,
        fetch: Callable[[], Credential],
        *,
        name: str,
        prepare: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = utc_now,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.issued = 0
        # The clock skew that the newest credential reveals, as text, or "".
        self.skew = ""
        self._now, self._jitter = now, jitter
        self._refresh = SingleFlight(
            fetch, prepare=prepare, on_result=self._store, on_error=self._record_failure
        )
        self._probe = SingleFlight(fetch, prepare=prepare, on_result=self._receive)
        self._probe_at: datetime | None = None
        self._current: Credential | None = None
        self._refresh_at: datetime | None = None
        self._error: BaseException | None = None
        self._pause = FIRST_PAUSE
        self._retry_at: datetime | None = None
        self._throttled_until: datetime | None = None

    def get(self, timeout: float = CALL_TIMEOUT) -> Credential:
        """
        Return a usable credential, almost always from memory.

        Without one, waits at most *timeout* seconds for the service. Raises
        `CredentialError` with the reason as its cause.
        """
        credential = self.ready()
        if credential is not None:
            return credential
        try:
            return self._fetch(timeout)
        except CredentialError:
            # The server checks expiry only at login, so within the margin the cached
            # credential still works. Use it while no new one is available.
            expiring = self._current
            if expiring is not None and expiring.left(self._now()) > timedelta():
                return expiring
            raise

    def ready(self) -> Credential | None:
        """Return the cached credential if it is fresh; start a refresh that is due."""
        credential, now = self._current, self._now()
        if credential is None or not credential.is_fresh(now):
            return None
        if self._refresh_at is not None and now >= self._refresh_at:
            self.refresh_soon()
        return credential

    def refresh_soon(self) -> None:
        """Start a fetch in the background, except in the pause after a failed one."""
        now = self._now()
        if self._retry_at is None or now >= self._retry_at:
            # Limits the rate even if the thread dies before it reports a failure.
            self._retry_at = now + timedelta(seconds=CALL_TIMEOUT)
            self._refresh.start()

    def refresh_if_due(self, timeout: float) -> None:
        """
        Refresh a credential that is past its refresh time, and wait for the result.

        Waits until the fetching thread has ended, at most until *timeout* seconds after
        its start. Does nothing before the first credential. Starts no fetch in the
        pause after a failed one. Logs a failure instead of raising it.
        """
        if self._current is None:
            return
        if self._refresh_at is not None and self._now() >= self._refresh_at:
            self.refresh_soon()
        self._refresh.join(timeout)

    def drop(self, rejected: Credential) -> None:
        """Drop *rejected*, unless another thread has already replaced it."""
        if self._current is rejected:
            self._current = None

    def probe(self, timeout: float) -> Credential | None:
        """
        Return a newly issued credential without replacing the cached one.

        Returns None if the last probe was less than `PROBE_INTERVAL` ago. Raises
        `CredentialError`.
        """
        now = self._now()
        if self._probe_at is not None and now - self._probe_at < PROBE_INTERVAL:
            return None
        self._probe_at = now
        return self.issue(timeout)

    def issue(self, timeout: float) -> Credential:
        """
        Return a newly issued credential without replacing the cached one.

        Waits at most *timeout* seconds. Raises `CredentialError`.
        """
        try:
            return self._probe.wait(timeout)
        except CallError as exc:
            raise CredentialError(scrub(str(exc.__cause__))) from exc.__cause__

    def adopt(self, credential: Credential) -> None:
        """Cache *credential*, a newly issued one with which a login has succeeded."""
        self._keep(credential)

    def is_refreshing(self) -> bool:
        """Return whether a request for a new credential is running."""
        return self._refresh.is_running()

    def join(self, timeout: float) -> None:
        """Wait until the thread of the latest request has ended; see `SingleFlight`."""
        self._refresh.join(timeout)

    @property
    def retry_at(self) -> datetime | None:
        """When the next request may start after a failure (aware, UTC)."""
        return self._retry_at

    @property
    def last_exception(self) -> BaseException | None:
        """The exception of the last refresh, or None if it succeeded."""
        return self._error

    @property
    def last_error(self) -> str:
        """The text of `last_exception`, without secrets, or ""."""
        return scrub(str(self._error)) if self._error else ""

    @property
    def expires_at(self) -> datetime | None:
        """When the cached credential expires (aware, UTC)."""
        current = self._current
        return None if current is None else current.expires_at

    def _fetch(self, timeout: float) -> Credential:
        throttled_until, error = self._throttled_until, self._error
        if throttled_until is not None and error and self._now() < throttled_until:
            raise CredentialError(scrub(str(error))) from error
        try:
            return self._refresh.wait(timeout)
        except CallError as exc:
            raise CredentialError(scrub(str(exc.__cause__))) from exc.__cause__

    def _receive(self, credential: Credential) -> Credential:
        self.issued += 1
        skew = self.skew = credential.skew()
        if skew:
            logger.warning(
                "clock skew with the credential for %s: %s",
                self.name,
                skew,
                extra={"lakebase_endpoint": self.name},
            )
        if credential.lifetime > MAX_LIFETIME + CLOCK_TOLERANCE:
            expires_at = credential.issued_at + MAX_LIFETIME
            return replace(credential, expires_at=expires_at)
        return credential

    def _store(self, credential: Credential) -> Credential:
        credential = self._receive(credential)
        self._keep(credential)
        seconds = credential.left(self._now()).total_seconds()
        logger.info(
            "new credential for %s, valid for %d s",
            self.name,
            seconds,
            extra={"lakebase_endpoint": self.name, "lakebase_left": round(seconds)},
        )
        return credential

    def _keep(self, credential: Credential) -> None:
        span = LATEST_REFRESH - EARLIEST_REFRESH
        share = EARLIEST_REFRESH + span * self._jitter()
        self._refresh_at = credential.issued_at + credential.lifetime * share
        self._current = credential
        self._error = self._retry_at = self._throttled_until = None
        self._pause = FIRST_PAUSE

    def _record_failure(self, error: BaseException) -> None:
        now = self._now()
        self._error = error
        pause = timedelta(seconds=self._pause * (0.5 + self._jitter() / 2))
        throttled = timedelta(seconds=retry_after(error))
        if throttled:
            self._throttled_until = now + throttled
        # The sum, not the maximum: processes that got the same Retry-After must not
        # retry together.
        self._retry_at = now + throttled + pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        current = self._current
        if current is not None and current.left(now) > timedelta():
            logger.warning(
                "could not refresh the credential for %s: %s; the current one is valid "
                "for %d s",
                self.name,
                scrub(str(error)),
                current.left(now).total_seconds(),
                extra={
                    "lakebase_endpoint": self.name,
                    "lakebase_left": round(current.left(now).total_seconds()),
                },
            )
