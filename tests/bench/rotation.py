"""The slowest connects while a credential is replaced, and while none is."""

import statistics
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from typing import Any

from django_lakebase.credentials import Credential, utc_now
from django_lakebase.workspace import access_to

from django_lakebase.local.client import LocalLakebase
from tests.bench import engines
from tests.bench.measure import Figure, Ratio, in_words, seconds

# Blocks of each kind, turn by turn; each one's slowest is its p99.9.
BLOCKS, CONNECTS = 6, 1000
MOST = 1.2


def rotation(*, quick: bool) -> Iterator[Figure]:
    """Compare the p99.9 of connecting across a rotation to that without one."""
    times = CONNECTS // (10 if quick else 1)
    with engines.lakebase() as local, local.fault("api-slow", ms=150):
        wrapper = engines.ours()
        with_one: list[list[float]] = []
        without: list[list[float]] = []
        # The first fetch of a process imports the SDK and logs in to the workspace.
        wrapper.connect()
        wrapper.close()
        for number in range(BLOCKS):
            kinds = [(with_one, True), (without, False)]
            for into, rotates in kinds if number % 2 else kinds[::-1]:
                into.append(_block(local, wrapper, times, rotates=rotates))
    for what, share, most in (("p99.9", 0.999, MOST), ("median", 0.5, None)):
        yield _figure(what, share, with_one, without, most)


def _block(
    local: LocalLakebase, wrapper: Any, times: int, *, rotates: bool
) -> list[float]:
    """Return the seconds of some connects, with a rotation in their middle or none."""
    taken = []
    credentials = access_to(wrapper.get_target()).credentials
    credentials.adopt(_credential(local, spent=0))
    issued = credentials.issued
    for number in range(times):
        if rotates and number == times // 2:
            # Past the share of its life after which it is renewed, whatever the dice.
            credentials.adopt(_credential(local, spent=0.8))
        taken.append(seconds(wrapper.connect))
        wrapper.close()
    if credentials.issued - issued != rotates:
        raise RuntimeError(f"{credentials.issued - issued} credentials were fetched")
    return taken


def _credential(local: LocalLakebase, *, spent: float) -> Credential:
    """Return a credential of an hour, of which the share *spent* has passed."""
    hour = timedelta(hours=1)
    issued_at = utc_now() - hour * spent
    return Credential(
        token=local.issue(local.facts["service_principal"]),
        issued_at=issued_at,
        expires_at=issued_at + hour,
    )


def _figure(
    what: str,
    share: float,
    with_one: list[list[float]],
    without: list[list[float]],
    most: float | None,
) -> Figure:
    def at(taken: list[float]) -> float:
        return sorted(taken)[min(int(len(taken) * share), len(taken) - 1)]

    ours, theirs = at([*chain(*with_one)]), at([*chain(*without)])
    each = [at(a) / at(b) for a, b in zip(with_one, without, strict=True)]
    low, _, high = statistics.quantiles(each, n=4)
    ratio = Ratio(ours / theirs, low, high)
    return Figure(
        what=f"{what} of connecting across a rotation, over none",
        figure=f"{ratio}: {in_words(ours)} and {in_words(theirs)}",
        goal=f"<= {most:g}" if most else "",
        is_met=None if most is None else ratio.middle <= most,
        ratio=ratio,
        most=most,
    )
