"""A value that is fetched once, for all callers."""

import threading

import pytest

from django_lakebase.auth.registry import CachedValue
from django_lakebase.auth.singleflight import CallError
from tests.helpers.engine_threads import join_threads


def do_nothing():
    """Prepare nothing."""


class Source:
    """A slow source of a value; *calls* counts its calls."""

    def __init__(self):
        self.calls, self.gate = 0, threading.Event()

    def fetch(self):
        """Return the value when the gate opens."""
        self.calls += 1
        self.gate.wait(30)
        return "value"


def test_known_value_is_not_fetched():
    source = Source()

    assert CachedValue(source.fetch, do_nothing, value="known").get(1) == "known"
    assert source.calls == 0


def test_fetch_that_outlasts_its_callers_is_used_by_the_next():
    """A search in a large workspace takes longer than a connection may wait."""
    source = Source()
    value = CachedValue(source.fetch, do_nothing)

    with pytest.raises(CallError):
        value.get(0.01)
    source.gate.set()
    join_threads("lakebase-workspace")

    assert value.get(0.0) == "value"
    assert source.calls == 1


@pytest.mark.parametrize(("call_timeout", "calls"), [(30.0, 1), (10.0, 2)])
def test_fetch_is_abandoned_after_its_own_time_limit(call_timeout, calls):
    source = Source()
    value = CachedValue(source.fetch, do_nothing, call_timeout=call_timeout)
    with pytest.raises(CallError):
        value.get(0.01)
    value._call.start().started_at -= 20  # noqa: SLF001 - as if 20 seconds had passed.

    with pytest.raises(CallError):
        value.get(0.01)
    source.gate.set()
    join_threads("lakebase-workspace")

    assert source.calls == calls
    assert value.get(1) == "value"


def test_failed_fetch_is_repeated():
    """An identity that is granted access needs no new process."""
    results = ["value", None]

    def fetch():
        result = results.pop()
        if result is None:
            raise LookupError("not found")
        return result

    value = CachedValue(fetch, do_nothing)
    with pytest.raises(CallError):
        value.get(10)

    assert value.get(10) == "value"
