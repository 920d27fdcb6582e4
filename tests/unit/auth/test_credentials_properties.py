"""The credential cache compared with a model, for any order of events."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_lakebase.auth.credentials import (
    LATEST_REFRESH,
    MARGIN,
    MARGIN_SHARE,
    Credential,
    CredentialCache,
)
from django_lakebase.auth.singleflight import CallError

START = datetime(2026, 1, 1, tzinfo=UTC)


class ThrottledError(Exception):
    """A 429."""

    def __init__(self, seconds):
        super().__init__("slow down")
        self.retry_after_secs = seconds


class HeldThread(threading.Thread):
    """A thread that seems to be alive until the test calls its run()."""

    waiting: ClassVar[list["HeldThread"]] = []
    # As of a thread that has been started.
    ident = 1

    def start(self):
        self.waiting.append(self)

    def is_alive(self):
        return self in self.waiting


def has_request(_):
    """Return whether a request is running."""
    return bool(HeldThread.waiting)


class CacheMachine(RuleBasedStateMachine):
    """Callers, a service and a clock in any order."""

    def __init__(self):
        super().__init__()
        self.now, self.number = START, 0
        self.answer: Any = None
        self.issued: Credential | None = None
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(threading, "Thread", HeldThread)
        HeldThread.waiting = []
        self.jitter = 0.0
        self.cache = CredentialCache(
            self.fetch, name="it", now=lambda: self.now, jitter=lambda: self.jitter
        )
        # The model: the credential that was issued and not dropped, the tokens that
        # were dropped, and until when no request may be sent.
        self.known: Any = None
        self.dropped: set[str] = set()
        self.quiet_until = START
        self.was_asked_while_quiet = False

    def teardown(self):
        self.patch.undo()

    def fetch(self):
        if isinstance(self.answer, BaseException):
            raise self.answer
        self.number += 1
        self.issued = Credential(
            token=str(self.number),
            issued_at=self.now,
            expires_at=self.now + self.answer,
        )
        return self.issued

    def is_fresh(self):
        if self.known is None:
            return False
        life = self.known.lifetime
        return self.known.left(self.now) > min(MARGIN, life * MARGIN_SHARE)

    @rule(seconds=st.sampled_from([0.1, 1, 29, 61, 600, 1799, 1801, 2700, 3541, 3600]))
    def time_passes(self, seconds):
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: self.known is not None)
    @rule(share=st.sampled_from([0.4, 0.6, 0.8, 0.97]))
    def share_of_lifetime_passes(self, share):
        self.now = max(self.now, self.known.issued_at + self.known.lifetime * share)

    @rule(jitter=st.floats(0, 1))
    def jitter_changes(self, jitter):
        self.jitter = jitter

    @rule()
    def caller_gets_credential(self):
        """Without time to wait: the cached credential, or an error."""
        before = len(HeldThread.waiting)
        try:
            got = self.cache.get(timeout=0)
        except CallError:
            assert not self.is_fresh()
            assert self.known is None or self.known.left(self.now) <= timedelta()
        else:
            assert got is self.known
            assert got.left(self.now) > timedelta()
        if len(HeldThread.waiting) > before:
            assert self.now >= self.quiet_until

    @precondition(has_request)
    @rule(
        answer=st.one_of(
            st.sampled_from([3600, 600, 20]).map(lambda s: timedelta(seconds=s)),
            st.just(OSError("down")),
            st.sampled_from([1, 30]).map(ThrottledError),
        )
    )
    def service_answers(self, answer):
        self.answer = answer
        HeldThread.waiting.pop(0).run()
        if isinstance(answer, ThrottledError):
            until = self.now + timedelta(seconds=answer.retry_after_secs)
            self.quiet_until = max(self.quiet_until, until)
        elif not isinstance(answer, Exception):
            self.known, self.quiet_until = self.issued, START

    @precondition(has_request)
    @rule()
    def thread_is_killed(self):
        # PyThreadState_SetAsyncExc raises it in a thread that is to be killed.
        self.answer = SystemExit()
        with pytest.raises(SystemExit):
            HeldThread.waiting.pop(0).run()

    @precondition(lambda self: self.known is not None)
    @rule()
    def server_rejects_credential(self):
        self.cache.drop(self.known)
        self.dropped.add(self.known.token)
        self.known = None

    @rule()
    def server_rejects_replaced_credential(self):
        """Reject a credential that the cache has replaced already."""
        old = Credential(token="0", issued_at=START, expires_at=START)
        self.cache.drop(old)

    @rule(seconds=st.sampled_from([20, 3600]))
    def probed_credential_is_adopted(self, seconds):
        self.number += 1
        self.known = Credential(
            token=f"proven {self.number}",
            issued_at=self.now,
            expires_at=self.now + timedelta(seconds=seconds),
        )
        self.cache.adopt(self.known)
        self.quiet_until = START

    @invariant()
    def at_most_one_request_runs(self):
        assert len(HeldThread.waiting) <= 1

    @invariant()
    def fresh_credential_is_returned_during_outages(self):
        if self.is_fresh():
            assert self.cache.get(timeout=0) is self.known

    @invariant()
    def refresh_starts_in_the_last_quarter(self):
        """Unless the pause after a failure lasts."""
        if not self.is_fresh() or self.now < self.known.issued_at + (
            self.known.lifetime * LATEST_REFRESH
        ):
            return
        self.cache.get_cached()
        retry_at = self.cache.retry_at
        assert HeldThread.waiting or (retry_at is not None and self.now < retry_at)

    @invariant()
    def rejected_credential_is_never_returned(self):
        ready = self.cache.get_cached()
        assert ready is None or ready.token not in self.dropped


TestCredentialCache = CacheMachine.TestCase
TestCredentialCache.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
