"""
Short-lived database credentials, kept fresh for the whole process.

Theory of operation. A cache holds one credential. *get* answers from memory while
that credential has more than a margin of its life left; past half to three quarters
of its life it also starts one fetch in the background. Only when nothing usable is
left does a caller wait, and all callers then wait for the same fetch.

Rules of this file. No lock is held during a fetch. Life is what the service says
(*expires_at*), never an assumption. A failed fetch never takes away a credential that
is still valid. The token is only ever handed out, never logged and never shown.
"""

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from .errors import retry_after, scrub
from .flight import CALL_BOUND, FlightError, SingleFlight

logger = logging.getLogger("django_lakebase")

# The longest life that the service gives: more means that a clock is wrong.
LONGEST_LIFE = timedelta(hours=1)
CLOCK_TOLERANCE = timedelta(minutes=5)
# Handed out without a second thought while more than this is left.
MARGIN = timedelta(seconds=60)
MARGIN_OF_LIFE = 0.1
# The share of its life after which it is renewed, by chance: processes that started
# together must not ask together for ever after. The more chance the sooner they part;
# a quarter of the life is left for the service to come back.
EARLIEST, LATEST = 0.5, 0.75
# Seconds between tries of the background renewal, doubled after each failure.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
PROBE_EVERY = timedelta(seconds=30)


def utc_now() -> datetime:
    """Return the time now, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A token, the moment it was received and the moment it expires (UTC)."""

    token: str = field(repr=False)
    issued_at: datetime
    expires_at: datetime

    @property
    def life(self) -> timedelta:
        """How long it was good for when it arrived."""
        return self.expires_at - self.issued_at

    def left(self, now: datetime) -> timedelta:
        """Return how long it is still good for."""
        return self.expires_at - now

    def is_fresh(self, now: datetime) -> bool:
        """Return whether more than the margin of its life is left."""
        return self.left(now) > min(MARGIN, self.life * MARGIN_OF_LIFE)

    def skew(self) -> str:
        """Return in words what its life says about the clocks, or nothing."""
        if self.life <= timedelta():
            return (
                f"it expires at {self.expires_at:%H:%M:%S} UTC and arrived at "
                f"{self.issued_at:%H:%M:%S} UTC by this machine's clock, which is "
                "ahead of the service's"
            )
        if self.life > LONGEST_LIFE + CLOCK_TOLERANCE:
            return (
                f"it expires in {self.life}, and the service gives an hour at most: "
                "this machine's clock is behind the service's"
            )
        return ""


class CredentialError(Exception):
    """No credential could be had; the cause says why."""


class CredentialCache:
    """
    One login's credential for one endpoint, shared by all threads of a process.

    *fetch* asks the service for a new credential, *prepare* runs in the caller before
    a thread does so, and *name* names the credential in logs. *now* and *chance* are
    parameters so that tests own time and luck.
    """

    def __init__(
        self,
        fetch: Callable[[], Credential],
        *,
        name: str,
        prepare: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = utc_now,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self.issued = 0
        # What the newest one said about the clocks.
        self.skew = ""
        self._now, self._chance = now, chance
        self._flight = SingleFlight(
            fetch, prepare=prepare, landed=self._land, failed=self._note_failure
        )
        self._probe = SingleFlight(fetch, prepare=prepare, landed=self._receive)
        self._probe_at: datetime | None = None
        self._current: Credential | None = None
        self._refresh_at: datetime | None = None
        self._error: BaseException | None = None
        self._pause = FIRST_PAUSE
        self._retry_at: datetime | None = None
        self._throttled_until: datetime | None = None

    def get(self, timeout: float = CALL_BOUND) -> Credential:
        """
        Return a credential that is valid for a while yet, almost always without I/O.

        Waits *timeout* seconds at most for the service when there is none. Raises
        `CredentialError` with the reason as its cause.
        """
        credential = self.ready()
        if credential is not None:
            return credential
        try:
            return self._fetch(timeout)
        except CredentialError:
            # The service looks at expiry at login only: the margin is for the time
            # in which no other credential can be had.
            last = self._current
            if last is not None and last.left(self._now()) > timedelta():
                return last
            raise

    def ready(self) -> Credential | None:
        """Return the fresh credential at hand, if any, renewing it ahead; no I/O."""
        credential, now = self._current, self._now()
        if credential is None or not credential.is_fresh(now):
            return None
        if self._refresh_at is not None and now >= self._refresh_at:
            self.renew_soon()
        return credential

    def renew_soon(self) -> None:
        """Start a fetch in the background, unless one failed a moment ago."""
        now = self._now()
        if self._retry_at is None or now >= self._retry_at:
            # Holds also if the thread should die without a word.
            self._retry_at = now + timedelta(seconds=CALL_BOUND)
            self._flight.start()

    def refresh_if_due(self, timeout: float) -> None:
        """
        Refresh a credential that is past its refresh time, and wait for that.

        Waits until the thread has ended, or *timeout* seconds since its start are
        over. Starts nothing before the first credential, or while the pause after a
        failure lasts. A failure of the request is logged and not raised.
        """
        if self._current is None:
            return
        if self._refresh_at is not None and self._now() >= self._refresh_at:
            self.renew_soon()
        self._flight.join(timeout)

    def drop(self, refused: Credential) -> None:
        """Forget *refused*, unless another thread has already replaced it."""
        if self._current is refused:
            self._current = None

    def probe(self, timeout: float) -> Credential | None:
        """
        Return a newly issued credential, leaving the one in use alone.

        None where that was done less than 30 seconds ago. Raises `CredentialError`.
        """
        now = self._now()
        if self._probe_at is not None and now - self._probe_at < PROBE_EVERY:
            return None
        self._probe_at = now
        return self.issue(timeout)

    def issue(self, timeout: float) -> Credential:
        """Return a newly issued credential, leaving the one in use alone."""
        try:
            return self._probe.wait(timeout)
        except FlightError as exc:
            raise CredentialError(scrub(str(exc.__cause__))) from exc.__cause__

    def adopt(self, proven: Credential) -> None:
        """Hand out *proven* from now on: a login with it has succeeded."""
        self._keep(proven)

    def is_refreshing(self) -> bool:
        """Return whether a request for a new credential is running."""
        return self._flight.is_running()

    def join(self, timeout: float) -> None:
        """Wait until the thread of the latest request has ended; see `SingleFlight`."""
        self._flight.join(timeout)

    @property
    def retry_at(self) -> datetime | None:
        """When the next request may start after a failure (aware, UTC)."""
        return self._retry_at

    @property
    def error(self) -> BaseException | None:
        """What the last fetch died of, if it did."""
        return self._error

    @property
    def trouble(self) -> str:
        """The same in words that may be shown."""
        return scrub(str(self._error)) if self._error else "not yet answered"

    @property
    def expires_at(self) -> datetime | None:
        """The moment (UTC) at which the credential at hand expires."""
        current = self._current
        return None if current is None else current.expires_at

    def _fetch(self, timeout: float) -> Credential:
        throttled_until, error = self._throttled_until, self._error
        if throttled_until is not None and error and self._now() < throttled_until:
            raise CredentialError(scrub(str(error))) from error
        try:
            return self._flight.wait(timeout)
        except FlightError as exc:
            raise CredentialError(scrub(str(exc.__cause__))) from exc.__cause__

    def _receive(self, credential: Credential) -> Credential:
        self.issued += 1
        skew = self.skew = credential.skew()
        if skew:
            logger.warning(
                "clock skew with the credential of %s: %s",
                self.name,
                skew,
                extra={"lakebase_endpoint": self.name},
            )
        if credential.life > LONGEST_LIFE + CLOCK_TOLERANCE:
            expires_at = credential.issued_at + LONGEST_LIFE
            return replace(credential, expires_at=expires_at)
        return credential

    def _land(self, credential: Credential) -> Credential:
        credential = self._receive(credential)
        self._keep(credential)
        seconds = credential.left(self._now()).total_seconds()
        logger.info(
            "new credential of %s, good for %d s",
            self.name,
            seconds,
            extra={"lakebase_endpoint": self.name, "lakebase_left": round(seconds)},
        )
        return credential

    def _keep(self, credential: Credential) -> None:
        share = EARLIEST + (LATEST - EARLIEST) * self._chance()
        ahead = credential.life * share
        self._refresh_at = credential.issued_at + ahead
        self._current = credential
        self._error = self._retry_at = self._throttled_until = None
        self._pause = FIRST_PAUSE

    def _note_failure(self, error: BaseException) -> None:
        now = self._now()
        self._error = error
        pause = timedelta(seconds=self._pause * (0.5 + self._chance() / 2))
        throttled = timedelta(seconds=retry_after(error))
        if throttled:
            self._throttled_until = now + throttled
        # The pause is added: those who were told the same must not come together.
        self._retry_at = now + throttled + pause
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        current = self._current
        if current is not None and current.left(now) > timedelta():
            logger.warning(
                "could not renew the credential of %s: %s; the one in use is good for "
                "%d s",
                self.name,
                scrub(str(error)),
                current.left(now).total_seconds(),
                extra={
                    "lakebase_endpoint": self.name,
                    "lakebase_left": round(current.left(now).total_seconds()),
                },
            )
