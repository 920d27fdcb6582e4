"""uvicorn, whose views leave the event loop with sync_to_async."""

import json
import signal

import pytest

from tests.helpers.app_servers import (
    BIN,
    Load,
    assert_no_stampede,
    fetcher,
    started,
    wait_until_disconnected,
)

pytest.importorskip("uvicorn")

COMMAND = [str(BIN / "uvicorn"), "tests.projects.site.asgi:application", "--port=0"]
POOL = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}}


def test_async_views_answer_through_rotations(busy):
    """Each request has another thread; the pool and its credentials are kept."""
    with started(COMMAND, **busy.env, SITE_DATABASE=json.dumps(POOL)) as server:
        [port] = server.wait_for(r"running on http://127\.0\.0\.1:(\d+)")
        with Load(fetcher(int(port), "/async/")) as load:
            load.wait_until_rotated(1)

        assert load.failures == []
        assert_no_stampede(busy, load, 1)
        # Each request had another thread, and none opened its own connection.
        assert busy.fetch_counters()["logins"] < len(load.answers)
        # uvicorn ends with the signal that it received, after its shutdown.
        assert server.end() in (0, -signal.SIGTERM)
    wait_until_disconnected(busy)
