"""
A process that the benchmarks start: it measures the way to its first query.

    python -m benchmarks.startup_child fresh | forked | forked-warm | forked-warmed-up

With the argument "open" it measures the memory of open connections instead.

The variable BENCH_DATABASES holds its DATABASES as JSON. It prints its results as JSON.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

WORKERS = 4
# Connections that are opened to measure their memory, and before that.
OPEN, OPENED_BEFORE = 100, 50

marks: list[tuple[str, float]] = []


def mark(step: str) -> None:
    """Record the time at which *step* ended."""
    # On Linux all processes share this clock, so the parent can subtract its own times.
    marks.append((step, time.monotonic()))


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


def run_first_query(connection: Any) -> None:
    """Connect and run a query."""
    connection.connect()
    mark("connect")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    mark("query")


def fetch_credential(connection: Any) -> None:
    """Fetch the credential in separate steps, which connect() takes in one."""
    from django_lakebase.auth import registry, sdk

    sdk.import_sdk()
    mark("SDK import")
    target = connection.get_target()
    access = registry.access_to(target)
    access.workspace.log_in()
    mark("workspace login")
    access.credentials.get()
    mark("credential")


def memory() -> float:
    """Return this process's memory in MB, with its share of shared pages (PSS)."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure_fresh() -> dict[str, Any]:
    """Return the steps of a new process and its memory."""
    connection = set_up()
    if hasattr(connection, "get_target"):
        fetch_credential(connection)
    run_first_query(connection)
    return {"marks": marks, "megabytes": memory()}


def measure_forked(parent: str) -> dict[str, Any]:
    """
    Return the seconds and memory of workers whose parent has loaded the project.

    This is what gunicorn does with --preload. With *parent* "forked-warm" the parent
    has also run a query, with "forked-warmed-up" it has called warm().
    """
    connection = set_up()
    if parent == "forked-warm":
        run_first_query(connection)
        connection.close()
    elif parent == "forked-warmed-up":
        from django_lakebase import warm

        warm()
    workers = [Worker(connection) for _ in range(WORKERS)]
    # Memory is read when all workers exist and have run their query.
    for worker in workers:
        worker.send("memory")
    megabytes = [worker.receive() for worker in workers]
    for worker in workers:
        worker.stop()
    return {
        "seconds": [worker.seconds for worker in workers],
        "megabytes": sum(megabytes) / WORKERS,
    }


def measure_open() -> dict[str, Any]:
    """Return the memory that each open connection takes."""
    connection = set_up()
    for _ in range(OPENED_BEFORE):
        connection.connect()
        connection.close()
    before = memory()
    connections = [connection.copy() for _ in range(OPEN)]
    for opened in connections:
        opened.connect()
    return {"megabytes": (memory() - before) / OPEN}


class Worker:
    """A forked child that runs a query; *seconds* is how long that took."""

    def __init__(self, connection: Any) -> None:
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        started = time.monotonic()
        self._pid = os.fork()
        self._in, self._out = to_parent, from_parent
        if self._pid == 0:
            self._in, self._out = to_child, from_child
            run_first_query(connection)
            self.send(time.monotonic() - started)
            os.read(self._in, 10)
            self.send(memory())
            os.read(self._in, 10)
            os._exit(0)
        # Waits here, so that workers run sequentially and do not compete for cores.
        self.seconds = self.receive()

    def receive(self) -> float:
        """Wait for the next number from the child and return it."""
        return float(os.read(self._in, 50))

    def send(self, value: object) -> None:
        """Send *value* as text to the other process."""
        os.write(self._out, str(value).encode())

    def stop(self) -> None:
        """Let the child exit."""
        self.send("stop")
        os.waitpid(self._pid, 0)


if __name__ == "__main__":
    mark("interpreter")
    mode = sys.argv[1]
    measure = {"fresh": measure_fresh, "open": measure_open}.get(mode)
    print(json.dumps(measure() if measure else measure_forked(mode)))
