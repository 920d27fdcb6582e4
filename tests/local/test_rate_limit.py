"""The rate that a principal is held to, with a clock of our own."""

from django_lakebase.local.api.fault_injection import RateLimiter


def test_a_second_s_worth_is_allow_at_once_and_then_a_steady_rate():
    """What is not used is saved, for a second at most."""
    now = [0.0]
    limiter = RateLimiter(lambda: now[0])

    def burst():
        return sum(limiter.allow("one", 5) for _ in range(20))

    first = burst()
    now[0] += 0.4
    soon = burst()
    now[0] += 60
    later = burst()

    assert (first, soon, later) == (5, 2, 5)


def test_principals_do_not_take_from_each_other():
    """As the service counts: by whom, and not by process."""
    limiter = RateLimiter(lambda: 0.0)

    assert limiter.allow("one", 1)
    assert not limiter.allow("one", 1)
    assert limiter.allow("other", 1)
