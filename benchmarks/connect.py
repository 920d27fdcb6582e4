"""Connecting: how long it takes, how many round trips, how many credentials."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from django.db import OperationalError

from benchmarks import backends
from benchmarks.measurement import (
    Figure,
    compared,
    in_threads,
    in_words,
    seconds,
    turns,
)
from benchmarks.round_trip_counter import Relay
from django_lakebase.local.client import LocalLakebase

# Milliseconds of each round trip, rounds, and the goal.
LATENCIES = ((0, 300, 1.05), (1, 200, 0.95), (10, 60, 0.9))
HERD_THREADS, HERD_CONNECTS = 50, 2000
MANY_THREADS, MANY_CONNECTS, LIVES = 64, 10_000, 3


def connect(*, quick: bool) -> Iterator[Figure]:
    """Compare a connect with a cached credential to one with a password."""
    with backends.lakebase() as local:
        ours, theirs = backends.ours(), backends.stock(local)

        def close() -> None:
            ours.close()
            theirs.close()

        for latency, rounds, most in LATENCIES:
            with _round_trips_of(local, latency):
                taken = turns(
                    (ours.connect, theirs.connect),
                    rounds // (10 if quick else 1),
                    after=close,
                )
            yield compared(f"connect, {latency} ms round trip", taken, most)
        yield round_trips(local)


@contextlib.contextmanager
def _round_trips_of(local: LocalLakebase, latency: int) -> Iterator[None]:
    with local.fault("latency", ms=latency) if latency else contextlib.nullcontext():
        yield


def round_trips(local: LocalLakebase) -> Figure:
    """Count the round trips of a connect, and of its end."""
    address = local.facts["hostaddr"], int(local.facts["port"])
    # At 10 ms what belongs together is together: no answer comes in between.
    with local.fault("latency", ms=10), Relay.to(*address) as relay:
        port = str(relay.port)
        ours, theirs = (
            min(_flights(relay, wrapper) for _ in range(5))
            for wrapper in (backends.ours(PORT=port), backends.stock(local, PORT=port))
        )
    return Figure(
        what="flights of a connect and its close, counted on the wire",
        figure=f"{ours} and {theirs}",
        goal="exactly one fewer",
        is_met=theirs - ours == 1,
    )


def _flights(relay: Relay, wrapper: Any) -> int:
    wrapper.connect()
    wrapper.close()
    return relay.taken()


def herd(*, quick: bool) -> Iterator[Figure]:
    """Compare one cache to a fetch per connection, at a slow API."""
    import psycopg
    from databricks.sdk import WorkspaceClient

    times = HERD_CONNECTS // (10 if quick else 1)
    with backends.lakebase() as local:
        params = backends.ours().get_connection_params()
        plain = {k: v for k, v in params.items() if k != "password"}
        client, endpoint = WorkspaceClient(), local.facts["endpoint"]

        def fetched() -> str:
            answer = client.postgres.generate_database_credential(endpoint=endpoint)
            return str(answer.token)

        mine = threading.local()

        def cached() -> str:
            # As Django does: a wrapper per thread, parameters per connection.
            if not hasattr(mine, "wrapper"):
                mine.wrapper = backends.ours()
            return str(mine.wrapper.get_connection_params()["password"])

        def whole(token: Callable[[], str]) -> None:
            psycopg.connect(**plain, password=token()).close()

        with local.fault("api-slow", ms=150):
            yield _herd(local, "credentials for", cached, fetched, times, 20.0)
            yield _herd(
                local,
                "whole connects:",
                lambda: whole(cached),
                lambda: whole(fetched),
                times,
            )


def _herd(
    local: LocalLakebase,
    what: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    times: int,
    least: float | None = None,
) -> Figure:
    backends.forget()
    local.reset_counters()
    our_time = in_threads(ours, times, HERD_THREADS)
    issued = local.counters()["credentials_issued"]
    faster = in_threads(theirs, times, HERD_THREADS) / our_time
    return Figure(
        what=f"{what} {times:,} in {HERD_THREADS} threads, beside a fetch for each",
        figure=f"{faster:.1f} times as fast, {issued} credential(s)",
        goal=f">= {least:g} times" if least else "",
        is_met=None if least is None else faster >= least,
    )


def many(*, quick: bool) -> Iterator[Figure]:
    """Connect from many threads while credentials come and go."""
    times = MANY_CONNECTS // (20 if quick else 1)
    with backends.lakebase() as local:
        rate = times / 10 / _connect_in_threads(local, times // 10)
    life = max(2.0, times / rate / LIVES)
    with backends.lakebase("--token-ttl", f"{life:.1f}") as local:
        local.reset_counters()
        taken = _connect_in_threads(local, times)
        counted = local.counters()
    issued, refused = counted["credentials_issued"], counted["refusals"]
    yield Figure(
        what=f"{times:,} connects from {MANY_THREADS} threads over "
        f"{taken / life:.1f} lives of a credential ({life:.0f} s)",
        figure=f"{issued} credentials, {refused} logins refused, "
        f"{times / taken:.0f} connects a second",
        goal=f"{LIVES} credentials",
        is_met=issued <= LIVES and not refused,
    )


def _connect_in_threads(local: LocalLakebase, times: int) -> float:
    mine = threading.local()

    def work() -> None:
        if not hasattr(mine, "wrapper"):
            mine.wrapper = backends.ours()
        mine.wrapper.connect()
        mine.wrapper.close()

    work()
    return in_threads(work, times, MANY_THREADS)


def unreachable(*, quick: bool) -> Iterator[Figure]:
    """Measure how long a workspace that never answers keeps a caller."""
    with backends.lakebase() as local, local.fault("api-silent"):

        def fail() -> None:
            with contextlib.suppress(OperationalError):
                backends.ours().connect()

        taken = seconds(fail)
    yield Figure(
        what="a workspace that never answers: until the error",
        figure=in_words(taken),
        goal="<= 10 s",
        # As printed: a thread that wakes up takes its milliseconds.
        is_met=round(taken, 1) <= 10,
    )
