"""
Start many processes in the same second: ``make thundering-herd``.

Each process has its own cache, and the workspace API is limited to a few requests per
second and identity. The processes connect when they start, and again in the same
second when all their credentials have expired.
"""

import argparse
import os
import statistics
import struct
import sys
import time
from typing import NoReturn

from django_lakebase.local.client import LocalLakebase

# Seconds for which a process retries after errors, as its users would.
PATIENCE = 300.0
PAUSE_AFTER_ERROR = 0.5
# What each process reports: seconds until served, and numbers of errors by category.
RESULT = struct.Struct("diii")
# Categories: over the limit; no answer in time, because the machine is busy; others.
THROTTLED, UNANSWERED, OTHERS = range(3)
CATEGORIES = {
    "api-throttled": THROTTLED,
    "api-unreachable": UNANSWERED,
    "waking": UNANSWERED,
}


def main() -> int:
    """Run, print the report, and return 1 if a process is not served."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.chaos.thundering_herd",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, default=200)
    parser.add_argument("--per-second", type=float, default=5.0, help="the API's limit")
    parser.add_argument(
        "--scope",
        choices=["credentials", "all"],
        default="credentials",
        help="the requests to limit",
    )
    parser.add_argument("--token-ttl", type=float, default=60.0, help="seconds")
    options = parser.parse_args()
    with LocalLakebase.start("--token-ttl", str(options.token_ttl)) as local:
        local.set_fault(
            "api-429",
            allowed_per_second=options.per_second,
            scope=options.scope,
        )
        os.environ.update(local.env)
        herd = ForkedProcesses(options.processes)
        try:
            is_served = herd.serve(local, "all start in the same second")
            time.sleep(options.token_ttl)
            is_served &= herd.serve(local, "all again after their credentials expired")
        finally:
            herd.stop()
    return 0 if is_served else 1


class ForkedProcesses:
    """Processes forked from one that has loaded the application, as servers do."""

    def __init__(self, size: int) -> None:
        _load_application()
        self._size = size
        self._results, send_results = os.pipe()
        self._starts: list[int] = []
        self._pids: list[int] = []
        for _ in range(size):
            await_start, start = os.pipe()
            pid = os.fork()
            if not pid:
                for other in self._starts:
                    os.close(other)
                os.close(start)
                _run(await_start, send_results)
            os.close(await_start)
            self._starts.append(start)
            self._pids.append(pid)
        os.close(send_results)

    def serve(self, local: LocalLakebase, title: str) -> bool:
        """Let all processes serve one request; print statistics, return success."""
        local.reset_counters()
        for start in self._starts:
            os.write(start, b"!")
        results = [
            RESULT.unpack(os.read(self._results, RESULT.size))
            for _ in range(self._size)
        ]
        times = sorted(seconds for seconds, *_ in results)
        errors = [
            sum(result[1 + category] for result in results) for category in range(3)
        ]
        counters = local.fetch_counters()
        requests = sum(counters["requests"].values())
        issued = counters["credentials_issued"]
        percentiles = statistics.quantiles(times, n=100, method="inclusive")
        p50, p99 = percentiles[49], percentiles[98]
        served = sum(seconds >= 0 for seconds in times)
        print(
            f"{title}: {served} of {self._size} served; {requests} requests, of which "
            f"{counters['requests'].get('/api/2.0/postgres/credentials', 0)} for "
            f"{issued} credentials; time until served: p50 {p50:.1f} s, p99 "
            f"{p99:.1f} s, maximum {times[-1]:.1f} s; earlier errors: "
            f"{errors[THROTTLED]} throttled, {errors[UNANSWERED]} without an answer in "
            f"time, {errors[OTHERS]} others",
            flush=True,
        )
        return served == self._size and not errors[OTHERS]

    def stop(self) -> None:
        """Stop all processes and wait for them."""
        for start in self._starts:
            os.close(start)
        for pid in self._pids:
            os.waitpid(pid, 0)


def _load_application() -> None:
    from django.conf import settings

    settings.configure(
        USE_TZ=True, DATABASES={"default": {"ENGINE": "django_lakebase"}}
    )
    import django

    django.setup()
    from django.db import connections

    from django_lakebase.auth.sdk import import_sdk

    import_sdk()
    # Loads the engine without network I/O.
    connections["default"].get_connection_params()


def _run(await_start: int, send_results: int) -> NoReturn:
    try:
        while os.read(await_start, 1):
            os.write(send_results, RESULT.pack(*_serve()))
    finally:
        os._exit(0)


def _serve() -> tuple[float, int, int, int]:
    """
    Serve one request, retrying after errors.

    Returns the seconds until served, or -1 if not, and the number of errors in each
    category.
    """
    from django.db import OperationalError, connection

    started, errors = time.monotonic(), [0, 0, 0]
    seconds = -1.0
    while time.monotonic() - started < PATIENCE:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except OperationalError as exc:
            errors[CATEGORIES.get(getattr(exc, "failure_id", ""), OTHERS)] += 1
            time.sleep(PAUSE_AFTER_ERROR)
        else:
            connection.close()
            seconds = time.monotonic() - started
            break
    return seconds, errors[THROTTLED], errors[UNANSWERED], errors[OTHERS]


if __name__ == "__main__":
    sys.exit(main())
