"""The credential cache, with a clock that the tests move."""

import logging
import threading
from datetime import UTC, datetime, timedelta

import pytest

from django_lakebase.auth.credentials import Credential, CredentialCache
from django_lakebase.auth.singleflight import CALL_TIMEOUT, CallError

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now

    def move(self, **span):
        self.now += timedelta(**span)


class Service:
    """A service that issues credentials for an hour or fails, and counts calls."""

    def __init__(self, clock):
        self.clock, self.calls, self.error = clock, 0, None
        self.lifetime = timedelta(hours=1)
        self.gate = threading.Event()
        self.gate.set()
        self.answered = threading.Semaphore(0)

    def __call__(self):
        self.calls += 1
        number = self.calls
        self.gate.wait(10)
        try:
            if self.error:
                raise self.error
            now = self.clock.now
            return Credential(
                token=f"token {number}", issued_at=now, expires_at=now + self.lifetime
            )
        finally:
            self.answered.release()


@pytest.fixture
def clock():
    """Return a clock."""
    return Clock()


@pytest.fixture
def service(clock):
    """Return a service."""
    return Service(clock)


@pytest.fixture
def cache(service, clock):
    """Return a cache of the service's credentials."""
    return CredentialCache(service, name="it", now=clock, jitter=lambda: 0.0)


def settle(cache):
    """Wait until no request is running."""
    cache.join(10)
    assert not cache.is_refreshing()


def test_repr_of_a_credential_hides_the_token():
    credential = Credential(token="secret", issued_at=START, expires_at=START)

    assert "secret" not in repr(credential)


def test_second_get_returns_the_cached_credential(cache, service):
    first = cache.get()

    assert cache.get() is first
    assert service.calls == 1


def test_concurrent_callers_share_one_request(cache, service):
    service.gate.clear()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(cache.get())) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    service.gate.set()
    for thread in threads:
        thread.join()

    assert len({credential.token for credential in found}) == 1
    assert service.calls == 1


def test_credential_past_half_its_lifetime_is_refreshed_in_background(
    cache, service, clock
):
    """The caller gets the current credential without waiting."""
    first = cache.get()
    clock.move(minutes=31)
    service.gate.clear()

    assert cache.get() is first
    service.gate.set()
    settle(cache)

    assert cache.get().token == "token 2"


def test_credential_before_half_its_lifetime_is_not_refreshed(cache, service, clock):
    cache.get()
    clock.move(minutes=29)

    cache.get()

    assert service.calls == 1


def test_jitter_delays_the_refresh_to_three_quarters_of_the_lifetime(service, clock):
    """Processes that started together do not refresh together."""
    cache = CredentialCache(service, name="it", now=clock, jitter=lambda: 1.0)
    cache.get()
    clock.move(minutes=44)
    cache.get()
    assert service.calls == 1

    clock.move(minutes=2)
    cache.get()
    settle(cache)

    assert service.calls == 2


def test_expired_credential_is_not_returned_when_the_service_fails(
    cache, service, clock
):
    cache.get()
    clock.move(minutes=61)
    service.error = OSError("down")

    with pytest.raises(CallError, match="down") as caught:
        cache.get()

    assert caught.value.__cause__ is service.error


def test_credential_in_its_last_minute_is_used_only_if_the_refresh_fails(
    cache, service, clock
):
    first = cache.get()
    clock.move(minutes=59, seconds=30)
    service.error = OSError("down")
    assert cache.get() is first

    service.error = None

    assert cache.get() is not first


def test_failed_refresh_keeps_the_credential_and_logs_its_remaining_lifetime(
    cache, service, clock, caplog
):
    first = cache.get()
    clock.move(minutes=40)
    service.error = OSError("down")

    assert cache.get() is first
    settle(cache)

    assert "down; the current one is valid for 1200 s" in caplog.text


def test_pauses_between_failed_refreshes_grow(cache, service, clock):
    cache.get()
    clock.move(minutes=40)
    service.error = OSError("down")
    tries = []
    for second in range(20):
        cache.get()
        settle(cache)
        tries.append(service.calls)
        clock.move(seconds=1)
        del second

    assert tries[-1] < 8
    assert tries[0] == 2


def test_background_refresh_waits_for_retry_after(cache, service, clock):
    cache.get()
    clock.move(minutes=40)
    service.error = OSError("busy")
    service.error.retry_after_secs = 30
    cache.get()
    settle(cache)
    clock.move(seconds=29)
    cache.get()
    settle(cache)
    assert service.calls == 2

    clock.move(seconds=2)
    cache.get()
    settle(cache)

    assert service.calls == 3


def test_jitter_is_added_to_retry_after(service, clock):
    """All processes get the same Retry-After."""
    cache = CredentialCache(service, name="it", now=clock, jitter=lambda: 1.0)
    cache.get()
    clock.move(minutes=46)
    service.error = OSError("busy")
    service.error.retry_after_secs = 30
    cache.get()
    settle(cache)

    clock.move(seconds=30.9)
    cache.get()
    settle(cache)

    assert service.calls == 2


def test_get_without_a_credential_raises_the_last_error_until_retry_after(
    cache, service, clock
):
    """No request is sent meanwhile."""
    service.error = OSError("busy")
    service.error.retry_after_secs = 30
    for _ in range(3):
        with pytest.raises(CallError, match="busy"):
            cache.get()
    assert service.calls == 1

    service.error = None
    clock.move(seconds=31)

    assert cache.get().token == "token 2"


def test_refresh_if_due_waits_for_the_credential_and_the_thread(cache, service, clock):
    cache.get()
    cache.join(10)
    clock.move(minutes=31)
    before = set(threading.enumerate())

    cache.refresh_if_due(10)

    assert cache.get_cached().token == "token 2"
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("minutes", [29, None], ids=["not due", "none yet"])
def test_refresh_if_due_sends_no_request_if_not_due(cache, service, clock, minutes):
    if minutes:
        cache.get()
        clock.move(minutes=minutes)
    calls = service.calls

    cache.refresh_if_due(10)

    assert service.calls == calls


def test_refresh_if_due_waits_for_retry_after_and_raises_nothing(cache, service, clock):
    first = cache.get()
    clock.move(minutes=40)
    service.error = OSError("busy")
    service.error.retry_after_secs = 30
    cache.refresh_if_due(10)
    cache.refresh_if_due(10)
    assert service.calls == 2
    assert cache.get_cached() is first

    service.error = None
    clock.move(seconds=31)
    cache.refresh_if_due(10)

    assert cache.get_cached().token == "token 3"


def test_refresh_if_due_returns_after_its_timeout(cache, service, clock):
    """It does not start a second request while the first one hangs."""
    first = cache.get()
    clock.move(minutes=31)
    service.gate.clear()

    cache.refresh_if_due(0.01)
    cache.refresh_if_due(0.01)

    assert cache.get_cached() is first
    assert service.calls == 2
    service.gate.set()
    settle(cache)
    assert cache.get_cached().token == "token 2"


def test_drop_of_a_replaced_credential_keeps_the_new_one(cache):
    """Another thread may have refreshed it in the meantime."""
    rejected = cache.get()
    cache.drop(rejected)
    refreshed = cache.get()
    cache.drop(rejected)

    assert cache.get() is refreshed


def test_probe_keeps_the_cached_credential_until_adopt(cache, service):
    """The new credential replaces it only after a login has succeeded."""
    kept = cache.get()
    probed = cache.probe(10)
    assert cache.get() is kept

    cache.adopt(probed)

    assert cache.get() is probed


def test_probe_returns_none_within_30_seconds_of_the_last(cache, service, clock):
    cache.get()
    assert cache.probe(10) is not None
    assert cache.probe(10) is None
    clock.move(seconds=31)

    assert cache.probe(10) is not None


def test_failed_probe_raises(cache, service):
    service.error = OSError("down")

    with pytest.raises(CallError, match="down"):
        cache.probe(10)


def test_failed_probe_logs_nothing_about_the_cached_credential(cache, service, caplog):
    """It is not the cached credential that could not be refreshed."""
    cache.get()
    service.error = OSError("down")

    with pytest.raises(CallError):
        cache.probe(10)

    assert "could not refresh" not in caplog.text


def test_new_credential_is_logged_when_it_is_cached(cache):
    """A handler that writes log records to the database connects with it."""
    logger, seen = logging.getLogger("django_lakebase"), []

    class DatabaseHandler(logging.Handler):
        def emit(self, record):
            seen.append(cache.get(timeout=0.1))

    handler, level = DatabaseHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        credential = cache.get()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

    assert seen == [credential]


def test_late_error_of_an_abandoned_call_is_not_logged(cache, service, clock, caplog):
    gate = service.gate
    gate.clear()
    with pytest.raises(CallError):
        cache.get(timeout=0.01)
    abandoned = cache._refresh.start()  # noqa: SLF001
    abandoned.started_at -= CALL_TIMEOUT + 1
    service.gate = threading.Event()
    service.gate.set()
    cache.get()

    service.error = OSError("down")
    gate.set()
    assert abandoned.exception(10) is service.error

    assert "could not refresh" not in caplog.text
    assert cache.last_error == ""


def test_get_raises_after_its_timeout(cache, service):
    service.gate.clear()

    with pytest.raises(CallError, match="no answer within"):
        cache.get(timeout=0.01)

    service.gate.set()
    settle(cache)
    assert cache.get().token == "token 1"


def test_lifetime_above_an_hour_is_cut_and_logged_as_clock_skew(cache, service, caplog):
    """The clock of this machine is behind: the server's expiry comes sooner."""
    service.lifetime = timedelta(hours=5)

    credential = cache.get()

    assert credential.lifetime == timedelta(hours=1)
    assert "behind the service's" in caplog.text


def test_credential_that_arrives_expired_is_used_once_and_logged_as_clock_skew(
    cache, service, caplog
):
    """The clock of this machine is ahead: the server may still accept the token."""
    service.lifetime = timedelta(seconds=-5)

    cache.get()
    cache.get()

    assert service.calls == 2
    assert "ahead of the service's" in caplog.text


def test_expiry_count_and_last_error_are_available_without_a_request(
    cache, service, clock
):
    assert (cache.expires_at, cache.last_exception, cache.last_error) == (
        None,
        None,
        "",
    )
    cache.get()
    assert cache.expires_at == START + timedelta(hours=1)
    assert cache.issued == 1

    service.error = OSError("down")
    clock.move(hours=2)
    with pytest.raises(CallError):
        cache.get()

    assert cache.last_error == "down"
    assert cache.last_exception is service.error
