"""gunicorn through token rotations under load."""

import contextlib
import json
import os
import signal
import threading

import pytest

from tests.helpers.app_servers import (
    BIN,
    Load,
    assert_no_stampede,
    fetcher,
    get,
    shared_sessions,
    started,
    wait_until,
    wait_until_disconnected,
)
from tests.helpers.plain_psycopg import open_session

pytest.importorskip("gunicorn")

WORKERS = 2
POOL = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}}
KEPT = {"CONN_MAX_AGE": None}
SYNC, THREADS = ["-k", "sync"], ["-k", "gthread", "--threads=4"]
PORT = r"Listening at: http://127\.0\.0\.1:(\d+)"
LOCK = 7
WAITING = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
"""


def gunicorn(tmp_path, database, *options, workers=WORKERS, is_warm=False):
    """Return the command that serves the site, and its environment."""
    command = [
        str(BIN / "gunicorn"),
        "tests.projects.site.wsgi",
        "--bind=127.0.0.1:0",
        f"--workers={workers}",
        *options,
    ]
    own = {"SITE_DATABASE": json.dumps(database), "SITE_IS_WARM": "1" * is_warm}
    # Newer versions create a socket in the home directory.
    return command, own | {"HOME": str(tmp_path)}


@pytest.mark.parametrize(
    ("options", "database", "is_warm"),
    [
        pytest.param(SYNC, KEPT, False, id="sync"),
        pytest.param([*SYNC, "--preload"], KEPT, True, id="sync-preload"),
        pytest.param(THREADS, KEPT, False, id="gthread"),
        pytest.param([*THREADS, "--preload"], POOL, True, id="gthread-preload-pool"),
    ],
)
def test_workers_answer_through_rotations(busy, tmp_path, options, database, is_warm):
    """Each has its own sessions and credentials, and leaves none behind."""
    command, own = gunicorn(tmp_path, database, *options, is_warm=is_warm)
    with started(command, **busy.env, **own) as server:
        [port] = server.wait_for(PORT)
        with Load(fetcher(int(port), "/facts/")) as load:
            load.wait_until_rotated(WORKERS)

        assert load.failures == []
        assert shared_sessions(load.answers) == set()
        assert_no_stampede(busy, load, WORKERS + is_warm)
        assert server.end() == 0
    wait_until_disconnected(busy)


def test_workers_are_replaced_under_load(busy, tmp_path):
    """Their sessions end with them, whether they exit or are killed."""
    options = ["--preload", "--max-requests=15"]
    command, own = gunicorn(tmp_path, KEPT, *options, is_warm=True)
    with started(command, **busy.env, **own) as server:
        [port] = server.wait_for(PORT)
        ask = fetcher(int(port), "/facts/")
        with Load(ask) as load:
            load.wait_until(lambda: len(load.credentials()) >= 2 * WORKERS)
        killed = ask()["pid"]
        os.kill(killed, signal.SIGKILL)
        server.wait_for(rf"(?i)(worker) \(pid: ?{killed}\) was sent SIGKILL")
        with Load(ask) as second:
            second.wait_until(lambda: len(second.credentials()) >= WORKERS)

        assert load.failures + second.failures == []
        assert killed not in second.credentials()
        assert shared_sessions(load.answers + second.answers) == set()
        assert server.end() == 0
    wait_until_disconnected(busy)


@pytest.fixture
def gevent_server(busy, tmp_path):
    """Yield the port of one gevent worker with a pool."""
    pytest.importorskip("gevent")
    command, own = gunicorn(tmp_path, POOL, "-k", "gevent", workers=1)
    with started(command, **busy.env, **own) as server:
        [port] = server.wait_for(PORT)
        yield int(port)
        assert server.end() == 0
    wait_until_disconnected(busy)


def test_greenlets_answer_through_rotations(busy, gevent_server):
    """They share one credential and one pool, whose threads are greenlets."""
    with Load(fetcher(gevent_server, "/facts/")) as load:
        load.wait_until_rotated(1)

    assert load.failures == []
    assert_no_stampede(busy, load, 1)
    assert busy.fetch_counters()["logins"] < len(load.answers)


def test_waiting_query_does_not_block_other_greenlets(busy, gevent_server):
    """Psycopg waits for the server with gevent's functions."""
    waiting = threading.Thread(target=get, args=(gevent_server, f"/wait/?lock={LOCK}"))
    with open_session(busy) as session:
        session.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        waiting.start()
        wait_until(lambda: session.execute(WAITING).fetchone()[0])

        assert fetcher(gevent_server, "/facts/")()["issued"] == 1
        assert waiting.is_alive()
        session.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
    waiting.join()


def test_silent_workspace_does_not_block_other_greenlets(busy, gevent_server):
    """The thread of the request is a greenlet, and so is its caller."""

    def ask():
        # The result of this request does not matter.
        with contextlib.suppress(AssertionError):
            get(gevent_server, "/facts/")

    waiting = threading.Thread(target=ask)
    with busy.fault("api-hang"):
        waiting.start()
        wait_until(lambda: busy.fetch_counters()["requests"])

        assert get(gevent_server, "/pong/") == b"pong"
        assert waiting.is_alive()
        busy.clear_faults()
    waiting.join()
