"""Benchmark of connection pools that Python projects can use without Django."""

import importlib
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from benchmarks import backends
from benchmarks.measurement import (
    Measurement,
    Skipped,
    compare,
    format_seconds,
    measure,
    measure_in_threads,
)
from django_lakebase.auth import registry
from django_lakebase.local.client import LocalLakebase

# databricks-ai-bridge always connects to this port.
PORT = 5432
CONNECTIONS, THREADS, QUERIES, ROUNDS = 10, 16, 3000, 7
# Seconds.
SHORT_LIFETIME = 5
LAKEBASE, SAMPLE, BRIDGE = (
    "django_lakebase",
    "the service's sample code",
    "databricks-ai-bridge",
)

NewPool = Callable[..., Any]


def other_pools(*, quick: bool) -> Iterator[Measurement | Skipped]:
    """Compare opening a pool, querying through it, and token expiry."""
    reason = _missing_requirement()
    if reason:
        yield Skipped(reason)
        return
    # The pools log the failed connections that this benchmark counts.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    options = "--pg-port", str(PORT), "--libpq"
    with (
        backends.running_lakebase(*options) as local,
        local.fault("api-slow", ms=150),
    ):
        yield from _compare_opening(local, 2 if quick else ROUNDS)
        yield from _compare_queries(
            QUERIES // (10 if quick else 1), 3 if quick else ROUNDS
        )
    with backends.running_lakebase(
        *options, "--token-ttl", str(SHORT_LIFETIME)
    ) as local:
        yield from _measure_expiry(local)


def _missing_requirement() -> str:
    """Return why this benchmark cannot run here, or ""."""
    try:
        importlib.import_module("databricks_ai_bridge.lakebase")
    except ImportError as exc:
        return (
            f"databricks-ai-bridge cannot be imported ({exc}). Run: "
            'pip install -e ".[local,bench]"'
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError as exc:
            return (
                f"databricks-ai-bridge can connect only to port {PORT}, which is "
                f"already in use ({exc.strerror})"
            )
    return ""


# The three pools, each opened with no cached client and no cached token.


def new_lakebase_pool(**options: Any) -> Any:
    """Return the pool of this project's engine."""
    registry.reset()
    pool = backends.lakebase_connection(OPTIONS={"pool": options}).pool
    pool.open()
    return pool


def new_sample_pool(**options: Any) -> Any:
    """Return a pool as in the service's samples: one credential per connection."""
    from databricks.sdk import WorkspaceClient

    workspace = WorkspaceClient()

    class CredentialConnection(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **params: Any) -> Any:
            credential = workspace.postgres.generate_database_credential(
                endpoint=os.environ["ENDPOINT_NAME"]
            )
            return super().connect(conninfo, **params, password=credential.token)

    return ConnectionPool(
        f"host={os.environ['PGHOST']} port={PORT} user={os.environ['PGUSER']} "
        f"dbname={os.environ['PGDATABASE']} sslmode=require",
        connection_class=CredentialConnection,
        kwargs={"autocommit": True},
        max_lifetime=2700,
        open=True,
        **options,
    )


def new_bridge_pool(**options: Any) -> Any:
    """Return the pool of databricks-ai-bridge."""
    module = importlib.import_module("databricks_ai_bridge.lakebase")
    return module.LakebasePool(
        autoscaling_endpoint=os.environ["ENDPOINT_NAME"],
        **options,
    ).pool


POOLS: dict[str, NewPool] = {
    LAKEBASE: new_lakebase_pool,
    SAMPLE: new_sample_pool,
    BRIDGE: new_bridge_pool,
}


def _compare_opening(local: LocalLakebase, rounds: int) -> Iterator[Measurement]:
    seconds: dict[str, list[float]] = {name: [] for name in POOLS}
    fetched: dict[str, int] = {}
    for _ in range(rounds + 1):
        for name, new_pool in POOLS.items():
            local.reset_counters()
            seconds[name].append(measure(partial(_open_and_close, new_pool)))
            fetched[name] = local.fetch_counters()["credentials_issued"]
    for name in (SAMPLE, BRIDGE):
        yield compare(
            f"opening {CONNECTIONS} connections ({fetched[LAKEBASE]} and "
            f"{fetched[name]} credentials fetched), engine / {name}",
            (seconds[LAKEBASE][1:], seconds[name][1:]),
        )


def _open(new_pool: NewPool) -> Any:
    pool = new_pool(min_size=CONNECTIONS, max_size=CONNECTIONS)
    pool.wait(60)
    return pool


def _open_and_close(new_pool: NewPool) -> None:
    _open(new_pool).close()


def _compare_queries(times: int, rounds: int) -> Iterator[Measurement]:
    seconds: dict[str, list[float]] = {name: [] for name in POOLS}
    with ExitStack() as stack:
        pools: dict[str, Any] = {}
        for name, new_pool in POOLS.items():
            pools[name] = _open(new_pool)
            stack.callback(pools[name].close)
        for _ in range(rounds + 1):
            for name, pool in pools.items():
                query = partial(_query, pool)
                seconds[name].append(measure_in_threads(query, times, THREADS))
    for name in (SAMPLE, BRIDGE):
        yield compare(
            f"{times:,} queries through the pool, {THREADS} threads, engine / {name}",
            (seconds[LAKEBASE][1:], seconds[name][1:]),
        )


def _query(pool: Any) -> None:
    checkout: AbstractContextManager[Any] = pool.connection()
    with checkout as connection:
        connection.execute("SELECT 1").fetchone()


def _measure_expiry(local: LocalLakebase) -> Iterator[Measurement]:
    """Query through each pool after its first token has expired."""
    for name, new_pool in POOLS.items():
        pool = new_pool(min_size=1, max_size=1, timeout=10)
        try:
            _query(pool)
            time.sleep(SHORT_LIFETIME + 1)
            local.reset_counters()
            local.set_fault("reset-connections", state="all")
            # A pool notices a reset connection when the first query fails.
            outcomes = [_try_query(pool) for _ in range(3)]
            rejected = local.fetch_counters()["rejections"]
        finally:
            pool.close()
        texts = [
            f"{'served' if is_served else 'failed'} in {format_seconds(seconds)}"
            for is_served, seconds in outcomes
        ]
        yield Measurement(
            name="three requests after a connection reset, with the token of "
            f"{SHORT_LIFETIME} s expired: {name}",
            value=f"{', '.join(texts)}; {rejected} logins rejected",
            goal="all served" if name == LAKEBASE else "",
            is_met=(
                all(is_served for is_served, _ in outcomes)
                if name == LAKEBASE
                else None
            ),
        )


def _try_query(pool: Any) -> tuple[bool, float]:
    is_served = True

    def query() -> None:
        nonlocal is_served
        try:
            _query(pool)
        except Exception:  # noqa: BLE001 - each pool raises different errors.
            is_served = False

    seconds = measure(query)
    return is_served, seconds
