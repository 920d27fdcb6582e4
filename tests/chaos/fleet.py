"""
Fleet: ``python -m tests.chaos.fleet --processes 200 --per-second 5``.

Processes that start in the same second, each with a cache of its own, against a
control plane that lets a few requests a second of each principal through. When their
credentials have run out, as at the hour, all serve again in the same second.
"""

import argparse
import os
import statistics
import struct
import sys
import time

from django_lakebase.local.client import LocalLakebase

# Seconds that a process goes on trying after an error, as its users would.
PATIENCE = 300.0
PAUSE_AFTER_ERROR = 0.5
# What each process tells of a round: seconds to serve, and the errors before, by name.
TOLD = struct.Struct("diii")
# The limit; no answer in time, where this machine is too slow for so many; others.
THROTTLED, UNANSWERED, OTHERS = range(3)
NAMES = {
    "api-throttled": THROTTLED,
    "api-unreachable": UNANSWERED,
    "waking": UNANSWERED,
}


def main():
    """Run, print the figures, and end with 1 where a process does not serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=200)
    parser.add_argument("--per-second", type=float, default=5.0)
    parser.add_argument("--path", choices=["credentials", "all"], default="credentials")
    parser.add_argument("--token-ttl", type=float, default=60.0, help="seconds")
    arguments = parser.parse_args()
    with LocalLakebase.start("--token-ttl", str(arguments.token_ttl)) as local:
        local.set_fault("api-429", per_second=arguments.per_second, path=arguments.path)
        os.environ.update(local.env)
        fleet = Fleet(arguments.processes)
        try:
            served = fleet.serve(local, "all start in the same second")
            time.sleep(arguments.token_ttl)
            served &= fleet.serve(local, "all again when their credentials are over")
        finally:
            fleet.end()
    return 0 if served else 1


class Fleet:
    """Forked from a process that has loaded the application, as a server preloads."""

    def __init__(self, size):
        _load()
        self._size = size
        self._told, tell = os.pipe()
        self._starts = []
        self._pids = []
        for _ in range(size):
            heard, start = os.pipe()
            pid = os.fork()
            if not pid:
                for other in self._starts:
                    os.close(other)
                os.close(start)
                _run(heard, tell)
            os.close(heard)
            self._starts.append(start)
            self._pids.append(pid)
        os.close(tell)

    def serve(self, local, what):
        """Have all serve one request now; print what it took, return if all did."""
        local.reset_counters()
        for start in self._starts:
            os.write(start, b"!")
        told = [TOLD.unpack(os.read(self._told, TOLD.size)) for _ in range(self._size)]
        times = sorted(seconds for seconds, *_ in told)
        errors = [sum(one[1 + which] for one in told) for which in range(3)]
        counters = local.counters()
        asked = sum(counters["requests"].values())
        issued = counters["credentials_issued"]
        hundredths = statistics.quantiles(times, n=100, method="inclusive")
        p50, p99 = hundredths[49], hundredths[98]
        served = sum(seconds >= 0 for seconds in times)
        print(
            f"{what}: {served} of {self._size} served; {asked} requests, of which "
            f"{counters['requests'].get('/api/2.0/postgres/credentials', 0)} for "
            f"{issued} credentials; time to serve p50 {p50:.1f} s, p99 "
            f"{p99:.1f} s, most {times[-1]:.1f} s; errors before: "
            f"{errors[THROTTLED]} throttled, {errors[UNANSWERED]} without an answer in "
            f"time, {errors[OTHERS]} others",
            flush=True,
        )
        return served == self._size and not errors[OTHERS]

    def end(self):
        """Let all end."""
        for start in self._starts:
            os.close(start)
        for pid in self._pids:
            os.waitpid(pid, 0)


def _load():
    from django.conf import settings

    settings.configure(
        USE_TZ=True, DATABASES={"default": {"ENGINE": "django_lakebase"}}
    )
    import django

    django.setup()
    from django.db import connections
    from django_lakebase.workspace import import_sdk

    import_sdk()
    import databricks.sdk.service.postgres  # noqa: F401

    # Loads the engine; nothing is asked and nobody is connected to.
    connections["default"].get_connection_params()


def _run(heard, tell):
    try:
        while os.read(heard, 1):
            os.write(tell, TOLD.pack(*_serve()))
    finally:
        os._exit(0)


def _serve():
    """Serve one request, trying again after errors; return what is told of it."""
    from django.db import OperationalError, connection

    started, errors = time.monotonic(), [0, 0, 0]
    while time.monotonic() - started < PATIENCE:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except OperationalError as exc:
            errors[NAMES.get(getattr(exc, "failure_id", ""), OTHERS)] += 1
            time.sleep(PAUSE_AFTER_ERROR)
        else:
            connection.close()
            return time.monotonic() - started, *errors
    return -1.0, *errors


if __name__ == "__main__":
    sys.exit(main())
