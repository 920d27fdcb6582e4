"""What follows a failed attempt: the ladder, without waiting."""

import pytest

from django_lakebase.kinds import Then
from django_lakebase.ladder import Ladder


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """Give a clock."""
    return Clock()


def walk(ladder, clock, then):
    """Climb until the end; return the seconds that it took."""
    while True:
        after, pause = ladder.next(then)
        if after is Then.STOP:
            return clock.now
        clock.now += pause


def test_stop_is_stop():
    """What waiting cannot mend ends at once."""
    assert Ladder(20).next(Then.STOP) == (Then.STOP, 0.0)


@pytest.mark.parametrize("then", [Then.RENEW, Then.PROBE])
def test_a_token_is_replaced_once(then):
    """A second refusal is not the token's fault."""
    ladder = Ladder(20)

    assert ladder.next(then)[0] is then
    assert ladder.next(then)[0] is Then.STOP


def test_waiting_ends_within_the_budget(clock):
    """No pause reaches beyond it."""
    ladder = Ladder(20, now=clock, chance=lambda: 1.0)

    assert 17 < walk(ladder, clock, Then.WAIT) <= 20


def test_a_brief_wait_ends_after_ten_seconds(clock):
    """A cause that may be permanent is not waited out."""
    ladder = Ladder(20, now=clock, chance=lambda: 1.0)

    assert 7 < walk(ladder, clock, Then.WAIT_BRIEFLY) <= 10


def test_pauses_grow_and_differ(clock):
    """Processes that fail together do not come back together."""
    long = Ladder(20, now=clock, chance=lambda: 1.0)
    short = Ladder(20, now=clock, chance=lambda: 0.0)

    pauses = [long.next(Then.WAIT)[1] for _ in range(6)]

    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert short.next(Then.WAIT)[1] == 0.05


def test_a_pool_s_worker_does_not_wait():
    """The pool waits itself; nested waits would add up."""
    ladder = Ladder(20, patient=False)

    assert ladder.next(Then.WAIT)[0] is Then.STOP
    assert ladder.next(Then.RENEW)[0] is Then.RENEW


def test_nothing_is_renewed_when_the_budget_is_spent(clock):
    """The bound is one for all."""
    ladder = Ladder(20, now=clock)
    clock.now = 21.0

    assert ladder.next(Then.RENEW)[0] is Then.STOP


def test_what_was_asked_for_comes_before_the_pause(clock):
    """Who was told to wait a second waits that and a little more, by chance."""
    assert Ladder(20, now=clock, chance=lambda: 1.0).next(Then.WAIT, at_least=1) == (
        Then.WAIT,
        1.1,
    )


def test_nobody_waits_for_what_comes_too_late(clock):
    """Beyond the budget there is nothing to wait for."""
    ladder = Ladder(20, now=clock)

    assert ladder.next(Then.WAIT, at_least=20) == (Then.STOP, 0.0)
