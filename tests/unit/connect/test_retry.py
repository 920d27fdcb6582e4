"""The retry policy, with a clock that the tests move."""

import pytest

from django_lakebase.connect.retry import RetryPolicy
from django_lakebase.failures.failure import Action


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """Return a clock at zero."""
    return Clock()


def seconds_until_stop(policy, clock, action):
    """Retry until the policy stops; return how many seconds that took."""
    while True:
        after, pause = policy.next(action)
        if after is Action.FAIL:
            return clock.now
        clock.now += pause


def test_permanent_failure_is_not_retried():
    assert RetryPolicy(20).next(Action.FAIL) == (Action.FAIL, 0.0)


@pytest.mark.parametrize("action", [Action.REFRESH, Action.PROBE])
def test_second_rejected_token_is_not_replaced(action):
    """A second rejection is not caused by the token."""
    policy = RetryPolicy(20)

    assert policy.next(action)[0] is action
    assert policy.next(action)[0] is Action.FAIL


def test_retries_end_within_the_budget(clock):
    policy = RetryPolicy(20, now=clock, jitter=lambda: 1.0)

    assert 17 < seconds_until_stop(policy, clock, Action.RETRY) <= 20


def test_brief_retries_end_after_ten_seconds(clock):
    """Their cause may be permanent."""
    policy = RetryPolicy(20, now=clock, jitter=lambda: 1.0)

    assert 7 < seconds_until_stop(policy, clock, Action.RETRY_BRIEFLY) <= 10


def test_pauses_double_up_to_two_seconds_with_jitter(clock):
    """The jitter keeps processes that failed together from retrying together."""
    long = RetryPolicy(20, now=clock, jitter=lambda: 1.0)
    short = RetryPolicy(20, now=clock, jitter=lambda: 0.0)

    pauses = [long.next(Action.RETRY)[1] for _ in range(6)]

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert short.next(Action.RETRY)[1] == 0.05


def test_token_is_not_replaced_after_the_budget(clock):
    policy = RetryPolicy(20, now=clock)
    clock.now = 21.0

    assert policy.next(Action.REFRESH)[0] is Action.FAIL


def test_pause_is_added_to_retry_after(clock):
    assert RetryPolicy(20, now=clock, jitter=lambda: 1.0).next(
        Action.RETRY, at_least=1
    ) == (
        Action.RETRY,
        1.1,
    )


def test_retry_after_beyond_the_budget_stops_at_once(clock):
    policy = RetryPolicy(20, now=clock)

    assert policy.next(Action.RETRY, at_least=20) == (Action.FAIL, 0.0)
