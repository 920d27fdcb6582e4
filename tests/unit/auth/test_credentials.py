"""The cache that keeps one credential fresh, with a clock of our own."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from django_lakebase.credentials import Credential, CredentialCache, CredentialError

START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now

    def move(self, **span):
        self.now += timedelta(**span)


class Service:
    """Gives credentials of an hour, or fails, and counts."""

    def __init__(self, clock):
        self.clock, self.calls, self.error = clock, 0, None
        self.life = timedelta(hours=1)
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
                token=f"token {number}", issued_at=now, expires_at=now + self.life
            )
        finally:
            self.answered.release()


@pytest.fixture
def clock():
    """Give a clock."""
    return Clock()


@pytest.fixture
def service(clock):
    """Give a service."""
    return Service(clock)


@pytest.fixture
def cache(service, clock):
    """Give a cache of the service."""
    return CredentialCache(service, name="it", now=clock, chance=lambda: 0.0)


def settle(cache):
    """Wait until no request is running."""
    cache.join(10)
    assert not cache.is_refreshing()


def test_the_token_is_in_no_repr():
    """Whoever prints a credential sees when it ends, and no more."""
    credential = Credential(token="secret", issued_at=START, expires_at=START)

    assert "secret" not in repr(credential)


def test_a_credential_is_fetched_once(cache, service):
    """Later callers get the one at hand."""
    first = cache.get()

    assert cache.get() is first
    assert service.calls == 1


def test_many_callers_wait_for_one_fetch(cache, service):
    """A start under load is one request."""
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


def test_past_half_of_its_life_it_is_renewed_in_the_background(cache, service, clock):
    """The caller goes on with the one in hand, and waits for nothing."""
    first = cache.get()
    clock.move(minutes=31)
    service.gate.clear()

    assert cache.get() is first
    service.gate.set()
    settle(cache)

    assert cache.get().token == "token 2"


def test_before_half_of_its_life_nothing_is_asked(cache, service, clock):
    """A credential is not fetched more often than needed."""
    cache.get()
    clock.move(minutes=29)

    cache.get()

    assert service.calls == 1


def test_chance_spreads_the_renewals(service, clock):
    """Processes that started together part within a quarter of a life."""
    cache = CredentialCache(service, name="it", now=clock, chance=lambda: 1.0)
    cache.get()
    clock.move(minutes=44)
    cache.get()
    assert service.calls == 1

    clock.move(minutes=2)
    cache.get()
    settle(cache)

    assert service.calls == 2


def test_an_expired_credential_is_never_handed_out(cache, service, clock):
    """When it has ended and none can be had, that is an error."""
    cache.get()
    clock.move(minutes=61)
    service.error = OSError("down")

    with pytest.raises(CredentialError, match="down") as caught:
        cache.get()

    assert caught.value.__cause__ is service.error


def test_the_last_minute_is_used_only_while_the_service_fails(cache, service, clock):
    """A short rest of life is better than none, and worse than a new one."""
    first = cache.get()
    clock.move(minutes=59, seconds=30)
    service.error = OSError("down")
    assert cache.get() is first

    service.error = None

    assert cache.get() is not first


def test_a_failed_renewal_leaves_the_credential_in_use(cache, service, clock, caplog):
    """It is logged, with how long there is left."""
    first = cache.get()
    clock.move(minutes=40)
    service.error = OSError("down")

    assert cache.get() is first
    settle(cache)

    assert "down; the one in use is good for 1200 s" in caplog.text


def test_failed_renewals_are_tried_again_with_growing_pauses(cache, service, clock):
    """The service is not asked by every caller while it is down."""
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


def test_retry_after_is_honoured(cache, service, clock):
    """A service that says when to come back is not asked before."""
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


def test_those_who_were_told_the_same_do_not_come_together(service, clock):
    """Retry-After is the same for all: chance is added to it."""
    cache = CredentialCache(service, name="it", now=clock, chance=lambda: 1.0)
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


def test_retry_after_holds_for_callers_without_a_credential_too(cache, service, clock):
    """They get the error again, without a request."""
    service.error = OSError("busy")
    service.error.retry_after_secs = 30
    for _ in range(3):
        with pytest.raises(CredentialError, match="busy"):
            cache.get()
    assert service.calls == 1

    service.error = None
    clock.move(seconds=31)

    assert cache.get().token == "token 2"


def test_refresh_if_due_waits_for_the_new_credential(cache, service, clock):
    """And for the end of the thread that fetched it."""
    cache.get()
    cache.join(10)
    clock.move(minutes=31)
    before = set(threading.enumerate())

    cache.refresh_if_due(10)

    assert cache.ready().token == "token 2"
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("minutes", [29, None], ids=["not due", "none yet"])
def test_refresh_if_due_asks_for_nothing_that_is_not_due(
    cache, service, clock, minutes
):
    """It costs a process that forks nothing."""
    if minutes:
        cache.get()
        clock.move(minutes=minutes)
    calls = service.calls

    cache.refresh_if_due(10)

    assert service.calls == calls


def test_refresh_if_due_honours_the_pause_after_a_failure(cache, service, clock):
    """And raises nothing: the credential in use may be good for long."""
    first = cache.get()
    clock.move(minutes=40)
    service.error = OSError("busy")
    service.error.retry_after_secs = 30
    cache.refresh_if_due(10)
    cache.refresh_if_due(10)
    assert service.calls == 2
    assert cache.ready() is first

    service.error = None
    clock.move(seconds=31)
    cache.refresh_if_due(10)

    assert cache.ready().token == "token 3"


def test_refresh_if_due_does_not_wait_longer_than_it_may(cache, service, clock):
    """Nor start a second request beside the one that hangs."""
    first = cache.get()
    clock.move(minutes=31)
    service.gate.clear()

    cache.refresh_if_due(0.01)
    cache.refresh_if_due(0.01)

    assert cache.ready() is first
    assert service.calls == 2
    service.gate.set()
    settle(cache)
    assert cache.ready().token == "token 2"


def test_drop_forgets_only_the_refused_one(cache):
    """Another thread may have renewed it in between."""
    refused = cache.get()
    cache.drop(refused)
    renewed = cache.get()
    cache.drop(refused)

    assert cache.get() is renewed


def test_a_probe_leaves_the_credential_in_place(cache, service):
    """It is replaced only when a login has proven the new one."""
    kept = cache.get()
    probed = cache.probe(10)
    assert cache.get() is kept

    cache.adopt(probed)

    assert cache.get() is probed


def test_probes_are_rare(cache, service, clock):
    """At most one in 30 seconds."""
    cache.get()
    assert cache.probe(10) is not None
    assert cache.probe(10) is None
    clock.move(seconds=31)

    assert cache.probe(10) is not None


def test_a_probe_that_fails_raises(cache, service):
    """The reason is its cause."""
    service.error = OSError("down")

    with pytest.raises(CredentialError, match="down"):
        cache.probe(10)


def test_callers_do_not_wait_longer_than_they_can(cache, service):
    """A silent service costs what the caller can afford."""
    service.gate.clear()

    with pytest.raises(CredentialError, match="no answer within"):
        cache.get(timeout=0.01)

    service.gate.set()
    settle(cache)
    assert cache.get().token == "token 1"


def test_a_life_that_is_too_long_is_cut(cache, service, caplog):
    """The clock here is behind: the expiry that the server has in mind is sooner."""
    service.life = timedelta(hours=5)

    credential = cache.get()

    assert credential.life == timedelta(hours=1)
    assert "behind the service's" in caplog.text


def test_a_credential_that_is_over_on_arrival_is_used_once(cache, service, caplog):
    """The clock here is ahead: the server may take it all the same."""
    service.life = timedelta(seconds=-5)

    cache.get()
    cache.get()

    assert service.calls == 2
    assert "ahead of the service's" in caplog.text


def test_what_is_known_without_asking(cache, service, clock):
    """Expiry, count and last error can be shown."""
    assert (cache.expires_at, cache.error, cache.trouble) == (
        None,
        None,
        "not yet answered",
    )
    cache.get()
    assert cache.expires_at == START + timedelta(hours=1)
    assert cache.issued == 1

    service.error = OSError("down")
    clock.move(hours=2)
    with pytest.raises(CredentialError):
        cache.get()

    assert cache.trouble == "down"
    assert cache.error is service.error
