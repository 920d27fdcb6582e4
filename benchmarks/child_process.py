"""
A fresh process, as the bench starts it: how long until its first query, and why.

    python -m benchmarks.child_process fresh | forked | forked-warm | forked-warmed-up

Its DATABASES are the variable BENCH_DATABASES, in JSON. It prints JSON.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

WORKERS = 4

marks: list[tuple[str, float]] = []


def mark(name: str) -> None:
    """Note that the step *name* has ended."""
    # The clock of all processes of a Linux machine.
    marks.append((name, time.monotonic()))


def set_up() -> Any:
    """Do what a project does before its first request; return its connection."""
    import django
    from django.conf import settings

    settings.configure(USE_TZ=True, DATABASES=json.loads(os.environ["BENCH_DATABASES"]))
    django.setup()
    mark("Django")
    from django.db import connections

    connection = connections["default"]
    mark("engine")
    return connection


def first_query(connection: Any) -> None:
    """Connect and run a query."""
    connection.connect()
    mark("connect")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    mark("query")


def fetch(connection: Any) -> None:
    """Take the steps to a credential one by one, which a connect takes together."""
    from django_lakebase import workspace

    workspace.import_sdk()
    mark("SDK's import")
    target = connection.get_target()
    workspace.log_in(target.login)
    mark("workspace login")
    workspace.access_to(target).credentials.get()
    mark("credential")


def memory() -> float:
    """Return the megabytes of this process, shared pages shared out (PSS)."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def fresh() -> dict[str, Any]:
    """Return the steps of a fresh process, and its memory."""
    connection = set_up()
    if hasattr(connection, "get_target"):
        fetch(connection)
    first_query(connection)
    return {"marks": marks, "megabytes": memory()}


def forked(parent: str) -> dict[str, Any]:
    """
    Return the same of workers whose parent has loaded the project.

    As gunicorn does with --preload. A *parent* that is "forked-warm" has run a query
    too, and one that is "forked-warmed-up" has called warm().
    """
    connection = set_up()
    if parent == "forked-warm":
        first_query(connection)
        connection.close()
    elif parent == "forked-warmed-up":
        from django_lakebase import warm

        warm()
    workers = [Worker(connection) for _ in range(WORKERS)]
    spans = [worker.hear() for worker in workers]
    # Now all are there and have done the same.
    for worker in workers:
        worker.say("weigh")
    megabytes = [worker.hear() for worker in workers]
    for worker in workers:
        worker.end()
    return {"seconds": spans, "megabytes": sum(megabytes) / WORKERS}


class Worker:
    """A forked child that runs a query, and tells how long that took."""

    def __init__(self, connection: Any) -> None:
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        started = time.monotonic()
        self._pid = os.fork()
        self._in, self._out = to_parent, from_parent
        if self._pid == 0:
            self._in, self._out = to_child, from_child
            first_query(connection)
            self.say(time.monotonic() - started)
            os.read(self._in, 10)
            self.say(memory())
            os.read(self._in, 10)
            os._exit(0)
        # One after the other: two cores would only make them wait for each other.
        self._span = float(os.read(self._in, 50))

    def hear(self) -> float:
        """Return the number that the child says."""
        span, self._span = self._span, 0.0
        return span or float(os.read(self._in, 50))

    def say(self, what: object) -> None:
        """Tell the other side."""
        os.write(self._out, str(what).encode())

    def end(self) -> None:
        """Let the child end."""
        self.say("end")
        os.waitpid(self._pid, 0)


if __name__ == "__main__":
    mark("interpreter")
    way = sys.argv[1]
    print(json.dumps(fresh() if way == "fresh" else forked(way)))
