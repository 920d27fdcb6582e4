"""
The measured figures: ``make bench``.

Each figure compares two ways in one run, turn by turn, and is a ratio with its
spread; only the last is in seconds, for its bound is.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import django
from django.conf import settings

from django_lakebase.local.client import LocalLakebase

THREADS, CONNECTS = 50, 2000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    quick = parser.parse_args().quick
    settings.configure(
        USE_TZ=True, DATABASES={"default": {"ENGINE": "django_lakebase"}}
    )
    django.setup()
    with LocalLakebase.start() as local:
        os.environ.update(local.env)
        scale = 10 if quick else 1
        for latency, rounds in ((0, 200 // scale), (10, 60 // scale)):
            with local.fault("latency", ms=latency) if latency else nothing():
                connects(local, latency, rounds)
        herd(local, CONNECTS // scale)
        imports(20 // scale + 3)
        unreachable(local)


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    """Change nothing."""
    yield


def say(what: str, figure: str, goal: str) -> None:
    """Print one line of the report."""
    print(f"{what:<58} {figure:<28} goal {goal}", flush=True)


def wrapper(engine: str, **own: Any) -> Any:
    """Return a connection of *engine*."""
    from django.db import connections
    from django.utils.module_loading import import_string

    configured = connections.configure_settings(
        {"default": {}, "bench": {"ENGINE": engine, **own}}
    )
    return import_string(f"{engine}.base.DatabaseWrapper")(configured["bench"], "bench")


def stock(local: LocalLakebase) -> Any:
    """Return a connection of Django's own engine, given a token just now."""
    facts = local.facts
    return wrapper(
        "django.db.backends.postgresql",
        NAME=facts["database"],
        USER=facts["service_principal"],
        PASSWORD=local.issue(facts["service_principal"]),
        HOST=facts["host"],
        PORT=str(facts["port"]),
        OPTIONS={
            "hostaddr": facts["hostaddr"],
            "sslmode": "verify-full",
            "sslrootcert": facts["ca_file"],
        },
    )


def seconds(work: Callable[[], object]) -> float:
    """Return how long *work* takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Return the ratio of medians, and the middle half of the rounds' ratios."""
    each = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    middle = statistics.median(ours) / statistics.median(theirs)
    return f"{middle:.2f} ({each[0]:.2f} to {each[2]:.2f})"


def connects(local: LocalLakebase, latency: int, rounds: int) -> None:
    """Compare a connect with a cached credential to one with a password."""
    ours, theirs = wrapper("django_lakebase"), stock(local)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 3):
        # Turn by turn, and each goes first as often as the other.
        pairs = [(ours, times[0]), (theirs, times[1])]
        for one, into in pairs if number % 2 else pairs[::-1]:
            into.append(seconds(one.connect))
            one.close()
    goal = "<= 1.05" if not latency else "<= 0.9"
    warm = ratio(times[0][3:], times[1][3:])
    say(f"connect over stock with a password, {latency} ms round trip", warm, goal)


def in_threads(work: Callable[[], object], times: int) -> float:
    """Return how long *times* calls of *work* take in all threads together."""
    numbers = iter(range(times))
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                if next(numbers, None) is None:
                    return
            work()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]

    def all_of_them() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return seconds(all_of_them)


def herd(local: LocalLakebase, times: int) -> None:
    """Compare one cache to a fetch per connection, at a slow API."""
    import psycopg
    from databricks.sdk import WorkspaceClient

    from django_lakebase import workspace

    params = wrapper("django_lakebase").get_connection_params()
    plain = {k: v for k, v in params.items() if k != "password"}
    client, endpoint = WorkspaceClient(), local.facts["endpoint"]

    def fetched() -> str:
        answer = client.postgres.generate_database_credential(endpoint=endpoint)
        return str(answer.token)

    mine = threading.local()

    def cached() -> str:
        # As Django does: a wrapper per thread, parameters per connection.
        if not hasattr(mine, "wrapper"):
            mine.wrapper = wrapper("django_lakebase")
        return str(mine.wrapper.get_connection_params()["password"])

    def connect(token: Callable[[], str]) -> None:
        psycopg.connect(**plain, password=token()).close()

    with local.fault("api-slow", ms=150):
        for what, ours, theirs, goal in (
            ("credentials for", cached, fetched, ">= 20"),
            (
                "whole connects:",
                lambda: connect(cached),
                lambda: connect(fetched),
                "none",
            ),
        ):
            workspace._accesses.clear()
            local.reset_counters()
            our_time = in_threads(ours, times)
            issued = local.counters()["credentials_issued"]
            their_time = in_threads(theirs, times)
            say(
                f"{what} {times} in {THREADS} threads, over a fetch each",
                f"{their_time / our_time:.1f}x, {issued} credential(s)",
                goal,
            )


def imports(rounds: int) -> None:
    """Compare the import of the engine to that of Django's own."""
    ours: list[float] = []
    theirs: list[float] = []
    import_time("django_lakebase.base")
    for _ in range(rounds):
        ours.append(import_time("django_lakebase.base"))
        theirs.append(import_time("django.db.backends.postgresql.base"))
    # Of the fastest of each: noise only ever adds.
    more = (min(ours) - min(theirs)) * 1000
    say("import over stock", f"{ratio(ours, theirs)}, {more:+.0f} ms", "<= +15 ms")


def import_time(module: str) -> float:
    """Return the seconds that a new process takes to import *module*, compiled."""
    code = (
        "from django.conf import settings; settings.configure(); import time;"
        f"t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
    )
    return float(out.stdout)


def unreachable(local: LocalLakebase) -> None:
    """Measure how long a workspace that never answers keeps a caller."""
    from django.db import OperationalError

    from django_lakebase import workspace

    workspace._accesses.clear()
    workspace._clients.clear()

    def fail() -> None:
        with contextlib.suppress(OperationalError):
            wrapper("django_lakebase").connect()

    with local.fault("api-silent"):
        took = seconds(fail)
    say("a workspace that never answers", f"{took:.1f} s", "<= 10 s")


if __name__ == "__main__":
    main()
