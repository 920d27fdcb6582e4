"""A connection that was kept, and that a suspend has cut meanwhile."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import Error

from benchmarks import backends
from benchmarks.measurement import Figure, compared, in_words, seconds, turns
from django_lakebase.local.client import LocalLakebase

ROUNDS, CUTS = 200, 12
IN_A_ROUND = 20


@dataclass
class Kind:
    """An engine with its settings, and what became of its requests."""

    words: str
    wrapper: Any
    failed: int = 0

    def request(self) -> None:
        """Do what Django does at a request's two ends, and one query between."""
        self.wrapper.close_if_unusable_or_obsolete()
        # Django resets this at each request.
        self.wrapper.health_check_done = False
        backends.query(self.wrapper)
        self.wrapper.close_if_unusable_or_obsolete()

    def requests(self) -> None:
        """Do so some times."""
        for _ in range(IN_A_ROUND):
            self.request()

    def survive(self) -> None:
        """Do so, counting a failure as such."""
        try:
            self.request()
        except Error:
            self.failed += 1


def idle(*, quick: bool) -> Iterator[Figure]:
    """Compare the cost of looking, and what happens after a cut."""
    scale = 4 if quick else 1
    with backends.lakebase() as local:
        kinds = _kinds(local)
        for latency in (0, 1):
            yield from _costs(local, kinds, latency, ROUNDS // scale)
        yield from _cuts(local, kinds, CUTS // scale)
        backends.close(*(kind.wrapper for kind in kinds))


def _kinds(local: LocalLakebase) -> tuple[Kind, Kind, Kind]:
    kept: dict[str, Any] = {"CONN_MAX_AGE": None}
    checked = {**kept, "CONN_HEALTH_CHECKS": True}
    return (
        Kind("django_lakebase", backends.ours(**kept)),
        Kind("stock", backends.stock(local, **kept)),
        Kind(
            "stock with CONN_HEALTH_CHECKS", backends.stock(local, "checked", **checked)
        ),
    )


def _costs(
    local: LocalLakebase, kinds: tuple[Kind, Kind, Kind], latency: int, rounds: int
) -> Iterator[Figure]:
    for kind in kinds:
        kind.wrapper.close()
    if latency:
        local.set_fault("latency", ms=latency)
    taken = turns([kind.requests for kind in kinds], rounds // (4 if latency else 1))
    local.clear_faults()
    what = f"a query on a kept connection, {latency} ms round trip, over stock"
    yield compared(what, taken[:2])
    yield compared(f"{what} with CONN_HEALTH_CHECKS", (taken[0], taken[2]))


def _cuts(
    local: LocalLakebase, kinds: tuple[Kind, Kind, Kind], times: int
) -> Iterator[Figure]:
    taken: list[list[float]] = [[] for _ in kinds]
    fresh: list[float] = []
    for _ in range(times):
        for kind in kinds:
            kind.wrapper.close()
            kind.request()
        # The endpoint is awake again at once: waking is not what is measured.
        with local.fault("suspend", wake=0):
            pass
        for kind, into in zip(kinds, taken, strict=True):
            into.append(seconds(kind.survive))
        kinds[0].wrapper.close()
        fresh.append(seconds(kinds[0].request))
    for kind, times_of in zip(kinds, taken, strict=True):
        span = in_words(statistics.median(times_of))
        yield Figure(
            what=f"the first request after a suspend: {kind.words}",
            figure=f"{kind.failed} of {times} failed, {span}",
            goal="none fails" if kind is kinds[0] else "",
            is_met=not kind.failed if kind is kinds[0] else None,
        )
    yield compared("replacing the cut connection, over opening one", (taken[0], fresh))
