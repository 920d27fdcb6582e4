"""Benchmarks of connecting: duration, round trips and credentials fetched."""

import contextlib
import os
import socket
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.db import OperationalError

from benchmarks import backends
from benchmarks.measurement import (
    Measurement,
    compare,
    format_seconds,
    measure,
    measure_alternately,
    measure_in_threads,
    ratio_of,
)
from benchmarks.process_startup import ChildProcesses
from benchmarks.round_trip_counter import RoundTripCounter
from django_lakebase.auth import registry
from django_lakebase.local.client import LocalLakebase

# Milliseconds of each round trip, rounds, and the goal.
LATENCIES = ((0, 300, 1.05), (1, 200, 0.85), (10, 60, 0.7))
# The engine may use direct TLS only after its first connections.
COUNTED_CONNECTIONS = 10
VERIFIED = {"sslmode": "verify-full", "sslrootcert": "system"}
UNVERIFIED = {"sslmode": "require"}
SCOPED = {
    "schema": "benchmarks",
    "statement_timeout": 60,
    "idle_in_transaction_session_timeout": 30,
}
CACHE_THREADS, CACHE_CONNECTIONS = 50, 2000
LIFETIME_THREADS, LIFETIME_CONNECTIONS, LIFETIMES = 64, 10_000, 3


def connect(*, quick: bool) -> Iterator[Measurement]:
    """Compare connecting with a cached credential to connecting with a password."""
    with backends.running_lakebase() as local:
        ours, theirs = backends.lakebase_connection(), backends.stock_connection(local)

        def close() -> None:
            ours.close()
            theirs.close()

        for latency, rounds, limit in LATENCIES:
            with _latency(local, latency):
                seconds = measure_alternately(
                    (ours.connect, theirs.connect),
                    rounds // (10 if quick else 1),
                    after=close,
                )
            yield compare(f"connect, {latency} ms round trip", seconds, limit)
        yield count_round_trips(local)


@contextlib.contextmanager
def _latency(local: LocalLakebase, latency: int) -> Iterator[None]:
    with local.fault("latency", ms=latency) if latency else contextlib.nullcontext():
        yield


def count_round_trips(local: LocalLakebase) -> Measurement:
    """Count the round trips of opening and closing a connection."""
    address = local.facts["hostaddr"], int(local.facts["port"])
    # With 10 ms of latency, no answer arrives between two writes of one flight.
    with (
        local.fault("latency", ms=10),
        RoundTripCounter.relaying_to(*address) as counter,
    ):
        port = str(counter.port)
        ours, scoped, theirs = (
            min(_round_trips(counter, connection) for _ in range(COUNTED_CONNECTIONS))
            for connection in (
                backends.lakebase_connection(PORT=port),
                backends.lakebase_connection("scoped", PORT=port, OPTIONS=SCOPED),
                backends.stock_connection(local, PORT=port),
            )
        )
    return Measurement(
        name="round trips of opening and closing a connection, counted on the wire",
        value=f"{ours} ({scoped} with a schema and time limits) and {theirs}",
        goal="two fewer",
        is_met=theirs - ours == 2 and scoped == ours,
    )


def _round_trips(counter: RoundTripCounter, connection: Any) -> int:
    connection.connect()
    descriptor = os.dup(connection.connection.pgconn.socket)
    with socket.socket(fileno=descriptor) as client:
        port = client.getsockname()[1]
    connection.close()
    return counter.take(port)


def verified_tls(*, quick: bool) -> Iterator[Measurement]:
    """Compare verification with a bundle of authorities to no verification."""
    with backends.running_lakebase() as local, _system_bundle(local):
        pair = [
            backends.lakebase_connection(alias, OPTIONS=options)
            for alias, options in (("verified", VERIFIED), ("unverified", UNVERIFIED))
        ]
        seconds = measure_alternately(
            [connection.connect for connection in pair],
            300 // (10 if quick else 1),
            after=lambda: [connection.close() for connection in pair],
        )
        yield compare("connect, verify-full / require", seconds, 1.05)
        yield _compare_connection_memory(rounds=2 if quick else 5)


def _compare_connection_memory(rounds: int) -> Measurement:
    pair = [
        ChildProcesses({"ENGINE": backends.LAKEBASE, "OPTIONS": options})
        for options in (VERIFIED, UNVERIFIED)
    ]
    for _ in range(rounds):
        for children in pair:
            children.run("open")
    verified, unverified = (children.megabytes("open") for children in pair)
    ratio = ratio_of(verified, unverified)
    medians = [statistics.median(values) * 1024 for values in (verified, unverified)]
    limit = 1.1
    return Measurement(
        name="memory (PSS) of each open connection, verify-full / require",
        value=f"{ratio}: {medians[0]:.0f} KB and {medians[1]:.0f} KB",
        goal=f"<= {limit:g}",
        is_met=ratio.value <= limit,
        ratio=ratio,
        limit=limit,
    )


@contextlib.contextmanager
def _system_bundle(local: LocalLakebase) -> Iterator[None]:
    """
    Have the engine find the public authorities, with the emulator's among them.

    The variables of the emulator that name its authority are not set meanwhile.
    """
    # A dependency of the SDK.
    import certifi

    names = ("PGSSLMODE", "PGSSLROOTCERT")
    saved = {name: os.environ.pop(name) for name in names}
    with tempfile.NamedTemporaryFile("w") as bundle:
        for path in (certifi.where(), local.facts["ca_file"]):
            bundle.write(Path(path).read_text())
        bundle.flush()
        os.environ["SSL_CERT_FILE"] = bundle.name
        try:
            yield
        finally:
            del os.environ["SSL_CERT_FILE"]
            os.environ.update(saved)


def shared_cache(*, quick: bool) -> Iterator[Measurement]:
    """Compare one cache to a fetch for each connection, with a slow API."""
    import psycopg
    from databricks.sdk import WorkspaceClient

    times = CACHE_CONNECTIONS // (10 if quick else 1)
    with backends.running_lakebase() as local:
        params = backends.lakebase_connection().get_connection_params()
        without_password = {k: v for k, v in params.items() if k != "password"}
        client, endpoint = WorkspaceClient(), local.facts["endpoint"]

        def fetch_token() -> str:
            answer = client.postgres.generate_database_credential(endpoint=endpoint)
            return str(answer.token)

        per_thread = threading.local()

        def cached_token() -> str:
            # As in Django: one wrapper per thread, new parameters per connection.
            if not hasattr(per_thread, "connection"):
                per_thread.connection = backends.lakebase_connection()
            return str(per_thread.connection.get_connection_params()["password"])

        def open_connection(get_token: Callable[[], str]) -> None:
            psycopg.connect(**without_password, password=get_token()).close()

        with local.fault("api-slow", ms=150):
            yield _compare_throughput(
                local,
                f"{times:,} credentials",
                cached_token,
                fetch_token,
                times,
                goal=20.0,
            )
            yield _compare_throughput(
                local,
                f"{times:,} connections",
                lambda: open_connection(cached_token),
                lambda: open_connection(fetch_token),
                times,
            )


def _compare_throughput(
    local: LocalLakebase,
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    times: int,
    *,
    goal: float | None = None,
) -> Measurement:
    registry.reset()
    local.reset_counters()
    seconds = measure_in_threads(ours, times, CACHE_THREADS)
    issued = local.fetch_counters()["credentials_issued"]
    factor = measure_in_threads(theirs, times, CACHE_THREADS) / seconds
    return Measurement(
        name=f"{name} in {CACHE_THREADS} threads, compared with a fetch for each",
        value=f"{factor:.1f} times as fast, credentials fetched: {issued}",
        goal=f">= {goal:g} times" if goal else "",
        is_met=None if goal is None else factor >= goal,
    )


def token_lifetimes(*, quick: bool) -> Iterator[Measurement]:
    """Connect from many threads for several token lifetimes."""
    times = LIFETIME_CONNECTIONS // (20 if quick else 1)
    with backends.running_lakebase() as local:
        rate = times / 10 / _connect_in_threads(local, times // 10)
    lifetime = max(2.0, times / rate / LIFETIMES)
    with backends.running_lakebase("--token-ttl", f"{lifetime:.1f}") as local:
        local.reset_counters()
        seconds = _connect_in_threads(local, times)
        counters = local.fetch_counters()
    issued, rejected = counters["credentials_issued"], counters["rejections"]
    yield Measurement(
        name=f"{times:,} connections from {LIFETIME_THREADS} threads during "
        f"{seconds / lifetime:.1f} token lifetimes ({lifetime:.0f} s each)",
        value=f"{issued} credentials, {rejected} logins rejected, "
        f"{times / seconds:.0f} connections per second",
        goal=f"{LIFETIMES} credentials",
        is_met=issued <= LIFETIMES and not rejected,
    )


def _connect_in_threads(local: LocalLakebase, times: int) -> float:
    per_thread = threading.local()

    def open_and_close() -> None:
        if not hasattr(per_thread, "connection"):
            per_thread.connection = backends.lakebase_connection()
        per_thread.connection.connect()
        per_thread.connection.close()

    open_and_close()
    return measure_in_threads(open_and_close, times, LIFETIME_THREADS)


def unreachable(*, quick: bool) -> Iterator[Measurement]:
    """Measure how long connecting blocks if the workspace never answers."""
    with backends.running_lakebase() as local, local.fault("api-hang"):

        def fail() -> None:
            with contextlib.suppress(OperationalError):
                backends.lakebase_connection().connect()

        seconds = measure(fail)
    yield Measurement(
        name="time until the error if the workspace never answers",
        value=format_seconds(seconds),
        goal="<= 10 s",
        # Rounded like the printed value: waking up the thread takes milliseconds.
        is_met=round(seconds, 1) <= 10,
    )
