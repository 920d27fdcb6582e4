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

Locks. The cache needs none: its attributes are replaced by single assignments, and a
`SingleFlight` ensures that one fetch at a time stores its result.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from django_lakebase import events
from django_lakebase.failures.classify import retry_after, scrub

from .singleflight import CALL_TIMEOUT, CallError, SingleFlight

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

    def describe_clock_skew(self) -> str:
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


class CredentialCache:
    """
    The credential of one login for one endpoint, shared by all threads of a process.

    *request* gets a new credential from the service and runs in a background thread.
    *prepare* runs in the calling thread before that. *name* identifies the credential
    in logs. *now* (aware, UTC) and *jitter* (0 to 1) are parameters so that tests
    control time and randomness.
    """

    def __init__(
        self,
        request: Callable[[], Credential],
        *,
        name: str,
        prepare: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = utc_now,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        # The clock skew that the newest credential reveals, as text, or "".
        self.clock_skew = ""
        self.last_exception: BaseException | None = None
        # When the next refresh may start after a failed one (aware, UTC).
        self.retry_at: datetime | None = None
        self.refresh_at: datetime | None = None
        self._request, self._now, self._jitter = request, now, jitter
        self._refresh = SingleFlight(
            self._fetch,
            prepare=prepare,
            on_result=self._store,
            on_error=self._record_failure,
        )
        self._probe = SingleFlight(self._fetch, prepare=prepare)
        self._probe_at: datetime | None = None
        self._current: Credential | None = None
        self._pause = FIRST_PAUSE
        self._throttled_until: datetime | None = None

    def get(self, timeout: float = CALL_TIMEOUT) -> Credential:
        """
        Return a usable credential, almost always from memory.

        Without one, waits at most *timeout* seconds for the service. Raises CallError.
        """
        credential = self.get_cached()
        if credential is not None:
            return credential
        try:
            return self._wait_for_refresh(timeout)
        except CallError:
            # The server checks expiry only at login, so within the margin the cached
            # credential still works. Use it while no new one is available.
            expiring = self._current
            if expiring is not None and expiring.left(self._now()) > timedelta():
                return expiring
            raise

    def get_cached(self) -> Credential | None:
        """Return the cached credential if it is fresh; start a refresh that is due."""
        credential, now = self._current, self._now()
        if credential is None or not credential.is_fresh(now):
            return None
        if self.refresh_at is not None and now >= self.refresh_at:
            self.refresh_soon()
        return credential

    def refresh_soon(self) -> None:
        """Start a refresh in the background, except in the pause after a failed one."""
        now = self._now()
        if self.retry_at is None or now >= self.retry_at:
            # Limits the rate even if the thread dies before it reports a failure.
            self.retry_at = now + timedelta(seconds=CALL_TIMEOUT)
            self._refresh.start()

    def refresh_if_due(self, timeout: float) -> None:
        """
        Refresh a credential that is past its refresh time, and wait for the result.

        Waits until the fetching thread has ended, at most until *timeout* seconds after
        its start. Does nothing before the first credential. Starts no request in the
        pause after a failed one. Logs a failure instead of raising it.
        """
        if self._current is None:
            return
        if self.refresh_at is not None and self._now() >= self.refresh_at:
            self.refresh_soon()
        self.join(timeout)

    def drop(self, rejected: Credential) -> None:
        """Drop *rejected*, unless another thread has already replaced it."""
        if self._current is rejected:
            self._current = None

    def probe(self, timeout: float) -> Credential | None:
        """
        Return a newly issued credential without replacing the cached one.

        Returns None if the last probe was less than `PROBE_INTERVAL` ago. Raises
        CallError.
        """
        now = self._now()
        if self._probe_at is not None and now - self._probe_at < PROBE_INTERVAL:
            return None
        self._probe_at = now
        return self.fetch_uncached(timeout)

    def fetch_uncached(self, timeout: float) -> Credential:
        """
        Return a newly issued credential without replacing the cached one.

        Waits at most *timeout* seconds. Raises CallError.
        """
        return self._probe.wait(timeout)

    def adopt(self, credential: Credential) -> None:
        """Cache *credential*, which was just issued or has just logged in."""
        span = LATEST_REFRESH - EARLIEST_REFRESH
        share = EARLIEST_REFRESH + span * self._jitter()
        self.refresh_at = credential.issued_at + credential.lifetime * share
        self._current = credential
        self.last_exception = self.retry_at = self._throttled_until = None
        self._pause = FIRST_PAUSE

    def is_refreshing(self) -> bool:
        """Return whether a refresh is running."""
        return self._refresh.is_running()

    def join(self, timeout: float) -> None:
        """Wait until the thread of the latest refresh has ended; see `SingleFlight`."""
        self._refresh.join(timeout)

    @property
    def issued(self) -> int:
        """The number of credentials that this process has received."""
        return events.get_count(self, "issued")

    @property
    def last_error(self) -> str:
        """The text of *last_exception*, without secrets, or ""."""
        return scrub(str(self.last_exception)) if self.last_exception else ""

    @property
    def expires_at(self) -> datetime | None:
        """When the cached credential expires (aware, UTC)."""
        current = self._current
        return None if current is None else current.expires_at

    def _wait_for_refresh(self, timeout: float) -> Credential:
        throttled_until, error = self._throttled_until, self.last_exception
        if throttled_until is not None and error and self._now() < throttled_until:
            raise CallError(error)
        return self._refresh.wait(timeout)

    def _fetch(self) -> Credential:
        """Request a credential, and report the result; runs in a background thread."""
        started = time.monotonic()
        try:
            credential = self._request()
        except Exception as exc:
            seconds = time.monotonic() - started
            events.credential_failed(self, self.name, exc, seconds=seconds)
            raise
        skew = self.clock_skew = credential.describe_clock_skew()
        if skew:
            events.clock_is_off(self.name, skew)
        if credential.lifetime > MAX_LIFETIME + CLOCK_TOLERANCE:
            expires_at = credential.issued_at + MAX_LIFETIME
            credential = replace(credential, expires_at=expires_at)
        events.credential_issued(
            self,
            self.name,
            issued_at=credential.issued_at,
            expires_at=credential.expires_at,
            seconds=time.monotonic() - started,
        )
        return credential

    def _store(self, credential: Credential) -> None:
        self.adopt(credential)
        # After that, because a log handler may use the database.
        left = credential.left(self._now()).total_seconds()
        events.credential_cached(self.name, left=left)

    def _record_failure(self, error: BaseException) -> None:
        now = self._now()
        self.last_exception = error
        pause = timedelta(seconds=self._pause * (0.5 + self._jitter() / 2))
        throttled = timedelta(seconds=retry_after(error))
        if throttled:
            self._throttled_until = now + throttled
        # The sum, not the maximum: processes that got the same Retry-After must not
        # retry together.
        self.retry_at = now + throttled + pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        current = self._current
        left = current.left(now).total_seconds() if current is not None else 0.0
        if left > 0:
            events.refresh_failed(self.name, error, left=left)
