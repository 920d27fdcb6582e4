"""The retry policy, with a clock that the tests move."""

import pytest

from django_lakebase.kinds import Then
from django_lakebase.ladder import Ladder


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """Return a clock at zero."""
    return Clock()


def seconds_until_stop(policy, clock, then):
    """Retry until the policy stops; return how many seconds that took."""
    while True:
        after, pause = policy.next(then)
        if after is Then.STOP:
            return clock.now
        clock.now += pause


def test_permanent_failure_is_not_retried():
    assert Ladder(20).next(Then.STOP) == (Then.STOP, 0.0)


@pytest.mark.parametrize("then", [Then.RENEW, Then.PROBE])
def test_second_rejected_token_is_not_replaced(then):
    """A second rejection is not caused by the token."""
    policy = Ladder(20)

    assert policy.next(then)[0] is then
    assert policy.next(then)[0] is Then.STOP


def test_retries_end_within_the_budget(clock):
    policy = Ladder(20, now=clock, chance=lambda: 1.0)

    assert 17 < seconds_until_stop(policy, clock, Then.WAIT) <= 20


def test_brief_retries_end_after_ten_seconds(clock):
    """Their cause may be permanent."""
    policy = Ladder(20, now=clock, chance=lambda: 1.0)

    assert 7 < seconds_until_stop(policy, clock, Then.WAIT_BRIEFLY) <= 10


def test_pauses_double_up_to_two_seconds_with_jitter(clock):
    """The jitter keeps processes that failed together from retrying together."""
    long = Ladder(20, now=clock, chance=lambda: 1.0)
    short = Ladder(20, now=clock, chance=lambda: 0.0)

    pauses = [long.next(Then.WAIT)[1] for _ in range(6)]

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert short.next(Then.WAIT)[1] == 0.05


def test_pool_worker_does_not_wait():
    """The pool itself waits and retries, and nested waits would add up."""
    policy = Ladder(20, patient=False)

    assert policy.next(Then.WAIT)[0] is Then.STOP
    assert policy.next(Then.RENEW)[0] is Then.RENEW


def test_token_is_not_replaced_after_the_budget(clock):
    policy = Ladder(20, now=clock)
    clock.now = 21.0

    assert policy.next(Then.RENEW)[0] is Then.STOP


def test_pause_is_added_to_retry_after(clock):
    assert Ladder(20, now=clock, chance=lambda: 1.0).next(Then.WAIT, at_least=1) == (
        Then.WAIT,
        1.1,
    )


def test_retry_after_beyond_the_budget_stops_at_once(clock):
    policy = Ladder(20, now=clock)

    assert policy.next(Then.WAIT, at_least=20) == (Then.STOP, 0.0)
