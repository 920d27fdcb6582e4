"""Celery workers through token rotations under load."""

import ast
import contextlib
import json
import threading

import pytest

from tests.helpers.app_servers import (
    BIN,
    Load,
    assert_no_stampede,
    shared_sessions,
    started,
    wait_until_disconnected,
)

celery = pytest.importorskip("celery")

PREFORK = ["-P", "prefork", "-c", "2"]
THREADS = ["-P", "threads", "-c", "4"]
ALONE = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
POOL = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}}
KEPT = {"CONN_MAX_AGE": None}


class Client:
    """A client that sends tasks to a worker, and reads their results in its log."""

    def __init__(self, folder, worker):
        self._queue, self._outbox = folder / "queue", folder / "outbox"
        self._worker = worker
        self._lock = threading.Lock()
        self._app = celery.Celery("client", broker="filesystem://")
        self._app.conf.broker_transport_options = {
            "data_folder_in": str(self._queue),
            "data_folder_out": str(self._outbox),
            "control_folder": str(folder / "control"),
        }

    def ask(self, name="facts"):
        """Run one task; return its facts."""
        with self._lock:
            task = self._app.send_task(name, ignore_result=True)
            # The worker must not read a partially written message.
            for message in self._outbox.iterdir():
                message.rename(self._queue / message.name)
        [facts] = self._worker.wait_for(rf"\[{task.id}\] succeeded in [\d.]+s: (.*)")
        return ast.literal_eval(facts)


@contextlib.contextmanager
def working(folder, options, **env):
    """Run a worker whose broker is *folder*."""
    for name in ("queue", "outbox", "control"):
        (folder / name).mkdir()
    command = [str(BIN / "celery"), "-A", "tests.projects.site", "worker"]
    with started(
        [*command, *options, *ALONE, "--loglevel=INFO"], SITE_FOLDER=str(folder), **env
    ) as worker:
        worker.wait_for("(ready)[.]$")
        yield worker


@pytest.mark.parametrize(
    ("options", "database", "processes"),
    [
        pytest.param(PREFORK, KEPT, 2, id="prefork"),
        pytest.param(THREADS, POOL, 1, id="threads-pool"),
    ],
)
def test_tasks_succeed_through_rotations(busy, tmp_path, options, database, processes):
    """Although a query in AppConfig.ready() has opened a connection in the parent."""
    own = {"SITE_IS_WARM": "1", "SITE_DATABASE": json.dumps(database)}
    with working(tmp_path, options, **busy.env, **own) as worker:
        with Load(Client(tmp_path, worker).ask) as load:
            load.wait_until_rotated(processes)

        assert load.failures == []
        assert shared_sessions(load.answers) == set()
        assert_no_stampede(busy, load, processes if processes == 1 else processes + 1)
        assert worker.end() == 0
    wait_until_disconnected(busy)


def test_children_of_a_warm_worker_send_no_request_to_the_workspace(local, tmp_path):
    """Each child runs one task with the credential that the parent has fetched."""
    options = ["-P", "prefork", "-c", "1", "--max-tasks-per-child=1"]
    with working(tmp_path, options, **local.env, SITE_WARMS_UP="1") as worker:
        client = Client(tmp_path, worker)
        answers = [client.ask("read") for _ in range(4)]

        counted = local.fetch_counters()
        assert worker.end() == 0
    assert len({facts["pid"] for facts in answers}) == 4
    assert shared_sessions(answers) == set()
    assert counted["requests"]["/oidc/v1/token"] == 1
    assert counted["credentials_issued"] == 1
