"""uvicorn, whose views leave the event loop by sync_to_async."""

import json
import signal

import pytest

from tests.helpers.programs import (
    BIN,
    Load,
    asking,
    assert_no_herd,
    started,
    until_no_connection,
)

pytest.importorskip("uvicorn")

COMMAND = [str(BIN / "uvicorn"), "tests.projects.site.asgi:application", "--port=0"]
POOL = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}}


def test_async_views_live_through_rotations(busy):
    """Threads come and go with the requests; the pool and its credentials stay."""
    with started(COMMAND, **busy.env, SITE_DATABASE=json.dumps(POOL)) as server:
        [port] = server.wait_for(r"running on http://127\.0\.0\.1:(\d+)")
        with Load(asking(int(port), "/async/")) as load:
            load.until_rotated(1)

        assert load.failures == []
        assert_no_herd(busy, load, 1)
        # Each request has had another thread, and none a connection of its own.
        assert busy.counters()["logins"] < len(load.answers)
        # It ends itself by the signal that it got, when all is done.
        assert server.end() in (0, -signal.SIGTERM)
    until_no_connection(busy)
