"""uWSGI without threads, through token rotations under load."""

import json
import sys

import pytest

from tests.helpers.app_servers import (
    BIN,
    Load,
    assert_no_stampede,
    fetcher,
    shared_sessions,
    started,
    wait_until_disconnected,
)

WORKERS = 2
COMMAND = [
    str(BIN / "uwsgi"),
    f"--home={sys.prefix}",
    "--http-socket=127.0.0.1:0",
    "--module=tests.projects.site.wsgi",
    "--master",
    f"--processes={WORKERS}",
    "--die-on-term",
    "--need-app",
]
KEPT = {"CONN_MAX_AGE": None}


@pytest.mark.skipif(not (BIN / "uwsgi").exists(), reason="needs pyuwsgi")
def test_workers_of_a_warm_master_answer_through_rotations(busy):
    """UWSGI forks without Python's fork hooks, and runs threads only occasionally."""
    own = {"SITE_DATABASE": json.dumps(KEPT), "SITE_IS_WARM": "1"}
    with started(COMMAND, **busy.env, **own) as server:
        [port] = server.wait_for(r"bound to TCP address 127\.0\.0\.1:(\d+)")
        with Load(fetcher(int(port), "/facts/")) as load:
            load.wait_until_rotated(WORKERS)

        assert load.failures == []
        assert shared_sessions(load.answers) == set()
        assert_no_stampede(busy, load, WORKERS + 1)
        assert server.end() == 0
    wait_until_disconnected(busy)
