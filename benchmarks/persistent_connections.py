"""Benchmark of persistent connections: liveness checks, and cuts while idle."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import Error

from benchmarks import backends
from benchmarks.measurement import (
    Measurement,
    compare,
    format_seconds,
    measure,
    measure_alternately,
)
from django_lakebase.local.client import LocalLakebase

ROUNDS, SUSPENDS = 200, 12
REQUESTS_PER_ROUND = 20


@dataclass
class Client:
    """A persistent connection of one backend, and its number of failed requests."""

    name: str
    connection: Any
    failed: int = 0

    def request(self) -> None:
        """Run one query, and what Django does at the start and end of a request."""
        self.connection.close_if_unusable_or_obsolete()
        # Django resets this at the start of each request.
        self.connection.health_check_done = False
        backends.run_query(self.connection)
        self.connection.close_if_unusable_or_obsolete()

    def request_round(self) -> None:
        """Run the requests of one round."""
        for _ in range(REQUESTS_PER_ROUND):
            self.request()

    def request_after_suspend(self) -> None:
        """Run one request, and count it if it fails."""
        try:
            self.request()
        except Error:
            self.failed += 1


Clients = tuple[Client, Client, Client]


def idle(*, quick: bool) -> Iterator[Measurement]:
    """Compare the cost of liveness checks, and the first request after a suspend."""
    scale = 4 if quick else 1
    with backends.running_lakebase() as local:
        clients = _new_clients(local)
        for latency in (0, 1):
            yield from _compare_checks(local, clients, latency, ROUNDS // scale)
        yield from _measure_suspends(local, clients, SUSPENDS // scale)
        backends.close(*(client.connection for client in clients))


def _new_clients(local: LocalLakebase) -> Clients:
    persistent: dict[str, Any] = {"CONN_MAX_AGE": None}
    checked = {**persistent, "CONN_HEALTH_CHECKS": True}
    return (
        Client("django_lakebase", backends.lakebase_connection(**persistent)),
        Client("stock", backends.stock_connection(local, **persistent)),
        Client(
            "stock with CONN_HEALTH_CHECKS",
            backends.stock_connection(local, "checked", **checked),
        ),
    )


def _compare_checks(
    local: LocalLakebase, clients: Clients, latency: int, rounds: int
) -> Iterator[Measurement]:
    for client in clients:
        client.connection.close()
    if latency:
        local.set_fault("latency", ms=latency)
    seconds = measure_alternately(
        [client.request_round for client in clients], rounds // (4 if latency else 1)
    )
    local.clear_faults()
    name = f"persistent connection, one query, {latency} ms round trip, engine / stock"
    yield compare(name, seconds[:2])
    yield compare(f"{name} with health checks", (seconds[0], seconds[2]))


def _measure_suspends(
    local: LocalLakebase, clients: Clients, times: int
) -> Iterator[Measurement]:
    after_suspend: list[list[float]] = [[] for _ in clients]
    new_connection: list[float] = []
    for _ in range(times):
        for client in clients:
            client.connection.close()
            client.request()
        # The endpoint resumes immediately: the time to wake up is not measured.
        with local.fault("suspend", wake_seconds=0):
            pass
        for client, seconds in zip(clients, after_suspend, strict=True):
            seconds.append(measure(client.request_after_suspend))
        clients[0].connection.close()
        new_connection.append(measure(clients[0].request))
    for client, seconds in zip(clients, after_suspend, strict=True):
        median = format_seconds(statistics.median(seconds))
        yield Measurement(
            name=f"the first request after a suspend: {client.name}",
            value=f"{client.failed} of {times} failed, {median}",
            goal="none fails" if client is clients[0] else "",
            is_met=not client.failed if client is clients[0] else None,
        )
    yield compare(
        "replacing a closed connection / opening one",
        (after_suspend[0], new_connection),
    )
