"""The limit on requests per second that the API applies to each identity."""

from django_lakebase.local.api.fault_responses import RateLimiter


def test_unused_requests_are_saved_for_one_second_at_most():
    now = [0.0]
    limiter = RateLimiter(lambda: now[0])

    def count_allowed():
        return sum(limiter.allow("one", 5) for _ in range(20))

    at_start = count_allowed()
    now[0] += 0.4
    after_400_ms = count_allowed()
    now[0] += 60
    after_a_minute = count_allowed()

    assert (at_start, after_400_ms, after_a_minute) == (5, 2, 5)


def test_identities_have_separate_limits():
    limiter = RateLimiter(lambda: 0.0)

    assert limiter.allow("one", 1)
    assert not limiter.allow("one", 1)
    assert limiter.allow("other", 1)
