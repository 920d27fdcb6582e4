"""What else a Python project could use: the same work, side by side."""

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
    Figure,
    Skipped,
    compared,
    in_threads,
    in_words,
    seconds,
)
from django_lakebase.local.client import LocalLakebase

# databricks-ai-bridge connects to this port, whatever the endpoint's is.
PORT = 5432
CONNECTIONS, THREADS, QUERIES, ROUNDS = 10, 16, 3000, 7
SHORT_LIFE = 5
OURS, SAMPLE, BRIDGE = "django_lakebase", "the sample's pattern", "databricks-ai-bridge"

OpenPool = Callable[..., Any]


def others(*, quick: bool) -> Iterator[Figure | Skipped]:
    """Compare pools that open, lend and outlive their first token."""
    why = _unfit()
    if why:
        yield Skipped(why)
        return
    # They tell on a logger what we measure.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    options = "--pg-port", str(PORT), "--libpq"
    with backends.lakebase(*options) as local, local.fault("api-slow", ms=150):
        yield from _opening(local, 2 if quick else ROUNDS)
        yield from _lending(QUERIES // (10 if quick else 1), 3 if quick else ROUNDS)
    with backends.lakebase(*options, "--token-ttl", str(SHORT_LIFE)) as local:
        yield from _outliving(local)


def _unfit() -> str:
    """Return why this cannot be measured here, or nothing."""
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
                f"databricks-ai-bridge connects to port {PORT} alone, and that is "
                f"taken here ({exc.strerror})"
            )
    return ""


# The three pools, opened from nothing: no client, no token.


def ours(**options: Any) -> Any:
    """Return the pool of this project's engine."""
    backends.forget()
    pool = backends.ours(OPTIONS={"pool": options}).pool
    pool.open()
    return pool


def sample(**options: Any) -> Any:
    """Return a pool by the service's own pattern: a credential per connection."""
    from databricks.sdk import WorkspaceClient

    workspace = WorkspaceClient()

    class FreshConnection(psycopg.Connection[Any]):
        @classmethod
        def connect(cls, conninfo: str = "", **params: Any) -> Any:
            credential = workspace.postgres.generate_database_credential(
                endpoint=os.environ["ENDPOINT_NAME"]
            )
            return super().connect(conninfo, **params, password=credential.token)

    return ConnectionPool(
        f"host={os.environ['PGHOST']} port={PORT} user={os.environ['PGUSER']} "
        f"dbname={os.environ['PGDATABASE']} sslmode=require",
        connection_class=FreshConnection,
        kwargs={"autocommit": True},
        max_lifetime=2700,
        open=True,
        **options,
    )


def bridge(**options: Any) -> Any:
    """Return the pool of databricks-ai-bridge."""
    module = importlib.import_module("databricks_ai_bridge.lakebase")
    return module.LakebasePool(
        autoscaling_endpoint=os.environ["ENDPOINT_NAME"],
        **options,
    ).pool


POOLS: dict[str, OpenPool] = {OURS: ours, SAMPLE: sample, BRIDGE: bridge}


def _opening(local: LocalLakebase, rounds: int) -> Iterator[Figure]:
    taken: dict[str, list[float]] = {name: [] for name in POOLS}
    fetched: dict[str, int] = {}
    for _ in range(rounds + 1):
        for name, new in POOLS.items():
            local.reset_counters()
            taken[name].append(seconds(partial(_open_and_close, new)))
            fetched[name] = local.counters()["credentials_issued"]
    for name in (SAMPLE, BRIDGE):
        yield compared(
            f"{CONNECTIONS} connections opened, {fetched[OURS]} and {fetched[name]} "
            f"credentials fetched, over {name}",
            (taken[OURS][1:], taken[name][1:]),
        )


def _opened(new: OpenPool) -> Any:
    pool = new(min_size=CONNECTIONS, max_size=CONNECTIONS)
    pool.wait(60)
    return pool


def _open_and_close(new: OpenPool) -> None:
    _opened(new).close()


def _lending(times: int, rounds: int) -> Iterator[Figure]:
    taken: dict[str, list[float]] = {name: [] for name in POOLS}
    with ExitStack() as opened:
        pools: dict[str, Any] = {}
        for name, new in POOLS.items():
            pools[name] = _opened(new)
            opened.callback(pools[name].close)
        for _ in range(rounds + 1):
            for name, pool in pools.items():
                taken[name].append(in_threads(partial(_query, pool), times, THREADS))
    for name in (SAMPLE, BRIDGE):
        yield compared(
            f"{times:,} times a query on a lent connection, {THREADS} threads, over "
            f"{name}",
            (taken[OURS][1:], taken[name][1:]),
        )


def _query(pool: Any) -> None:
    lent: AbstractContextManager[Any] = pool.connection()
    with lent as connection:
        connection.execute("SELECT 1").fetchone()


def _outliving(local: LocalLakebase) -> Iterator[Figure]:
    """Ask each pool for a connection after the life of its first token."""
    for name, new in POOLS.items():
        pool = new(min_size=1, max_size=1, timeout=10)
        try:
            _query(pool)
            time.sleep(SHORT_LIFE + 1)
            local.reset_counters()
            local.set_fault("cut", which="all")
            # One that was cut is found out by its first query.
            outcomes = [_outcome(pool) for _ in range(3)]
            refused = local.counters()["refusals"]
        finally:
            pool.close()
        words = [f"{'served' if well else 'failed'} in {t}" for well, t in outcomes]
        yield Figure(
            what=f"three requests after a cut, past the token's {SHORT_LIFE} s: {name}",
            figure=f"{', '.join(words)}; {refused} logins refused",
            goal="all served" if name == OURS else "",
            is_met=all(well for well, _ in outcomes) if name == OURS else None,
        )


def _outcome(pool: Any) -> tuple[bool, str]:
    well = True

    def ask() -> None:
        nonlocal well
        try:
            _query(pool)
        except Exception:  # noqa: BLE001 - each has errors of its own.
            well = False

    taken = in_words(seconds(ask))
    return well, taken
