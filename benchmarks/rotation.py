"""Benchmark of the slowest connects while a credential is refreshed."""

import statistics
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from typing import Any

from benchmarks import backends
from benchmarks.measurement import Measurement, Ratio, format_seconds, measure
from django_lakebase.auth.credentials import Credential, utc_now
from django_lakebase.auth.registry import access_to
from django_lakebase.local.client import LocalLakebase

# Blocks with and without a refresh alternate. In 1,000 connects, p99.9 is the slowest.
BLOCKS, CONNECTS = 6, 1000
LIMIT = 1.2


def rotation(*, quick: bool) -> Iterator[Measurement]:
    """Compare the p99.9 of connecting with and without a refresh in between."""
    times = CONNECTS // (10 if quick else 1)
    with backends.running_lakebase() as local, local.fault("api-slow", ms=150):
        connection = backends.lakebase_connection()
        with_refresh: list[list[float]] = []
        without: list[list[float]] = []
        # The first fetch of a process imports the SDK and logs in to the workspace.
        connection.connect()
        connection.close()
        for number in range(BLOCKS):
            pair = [(with_refresh, True), (without, False)]
            for blocks, refreshes in pair if number % 2 else pair[::-1]:
                blocks.append(
                    _measure_block(local, connection, times, refreshes=refreshes)
                )
    for name, quantile, limit in (("p99.9", 0.999, LIMIT), ("median", 0.5, None)):
        yield _compare_quantiles(name, quantile, with_refresh, without, limit)


def _measure_block(
    local: LocalLakebase, connection: Any, times: int, *, refreshes: bool
) -> list[float]:
    """Return the seconds of each connect, with or without a refresh half-way."""
    seconds = []
    credentials = access_to(connection.get_target()).credentials
    credentials.adopt(_new_credential(local, elapsed=0))
    issued = credentials.issued
    for number in range(times):
        if refreshes and number == times // 2:
            # Past the latest possible refresh time, whatever the random jitter.
            credentials.adopt(_new_credential(local, elapsed=0.8))
        seconds.append(measure(connection.connect))
        connection.close()
    if credentials.issued - issued != refreshes:
        raise RuntimeError(
            f"expected {refreshes:d} credential fetches during the block, "
            f"got {credentials.issued - issued}"
        )
    return seconds


def _new_credential(local: LocalLakebase, *, elapsed: float) -> Credential:
    """Return a credential for an hour, of which the share *elapsed* has passed."""
    hour = timedelta(hours=1)
    issued_at = utc_now() - hour * elapsed
    return Credential(
        token=local.issue_token(local.facts["service_principal"]),
        issued_at=issued_at,
        expires_at=issued_at + hour,
    )


def _compare_quantiles(
    name: str,
    quantile: float,
    with_refresh: list[list[float]],
    without: list[list[float]],
    limit: float | None,
) -> Measurement:
    def quantile_of(seconds: list[float]) -> float:
        return sorted(seconds)[min(int(len(seconds) * quantile), len(seconds) - 1)]

    ours = quantile_of([*chain(*with_refresh)])
    theirs = quantile_of([*chain(*without)])
    ratios = [
        quantile_of(a) / quantile_of(b)
        for a, b in zip(with_refresh, without, strict=True)
    ]
    low, _, high = statistics.quantiles(ratios, n=4)
    ratio = Ratio(ours / theirs, low, high)
    return Measurement(
        name=f"{name} of connecting, with a refresh / without",
        value=f"{ratio}: {format_seconds(ours)} and {format_seconds(theirs)}",
        goal=f"<= {limit:g}" if limit else "",
        is_met=None if limit is None else ratio.value <= limit,
        ratio=ratio,
        limit=limit,
    )
