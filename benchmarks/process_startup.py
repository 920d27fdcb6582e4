"""What a process pays: its import, its first query, its memory."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks import backends
from benchmarks.measurement import Figure, Ratio, Step, compared, in_words, ratio, turns
from django_lakebase.local.client import LocalLakebase

ROUNDS = 12
IMPORT_MODULE = (
    "from django.conf import settings; settings.configure(); import time;"
    "t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
)
FORKED = {
    "forked": "a worker forked by a parent that has loaded the project",
    "forked-warm": "a worker forked by a parent that has run a query too",
    "forked-warmed-up": "a worker forked by a parent that has called warm()",
}


def imports(*, quick: bool) -> Iterator[Figure]:
    """Compare the import of the engine to that of Django's own."""
    ours: list[float] = []
    theirs: list[float] = []
    _import_time("django_lakebase.base")
    for _ in range(20 // (4 if quick else 1)):
        ours.append(_import_time("django_lakebase.base"))
        theirs.append(_import_time("django.db.backends.postgresql.base"))
    # Of the fastest of each: noise only ever adds.
    more = (min(ours) - min(theirs)) * 1000
    found = ratio(ours, theirs)
    yield Figure(
        what="import of the engine, over stock",
        figure=f"{found}, {more:+.0f} ms",
        goal="<= +15 ms",
        is_met=more <= 15,
        ratio=found,
    )
    sdk = statistics.median(_import_time("databricks.sdk") for _ in range(5))
    yield Figure(
        what="import of databricks-sdk, which a process needs at its first credential",
        figure=f"{in_words(sdk)}, {_share_of_services():.0%} of it its service modules",
    )


def _import_time(module: str) -> float:
    """Return the seconds that a new process takes to import *module*, compiled."""
    return float(_python("-c", IMPORT_MODULE.format(module)).stdout)


def _share_of_services() -> float:
    """Return the share of the SDK's import that goes to its modules of services."""
    told = _python("-X", "importtime", "-c", "import databricks.sdk").stderr
    total = services = 0
    for line in told.splitlines():
        own, cumulative, name = line.removeprefix("import time:").split("|")
        if name.strip().startswith("databricks.sdk.service"):
            services += int(own)
        if name.strip() == "databricks.sdk":
            total = int(cumulative)
    return services / total


def processes(*, quick: bool) -> Iterator[Figure | Step]:
    """Compare fresh processes, and forked ones, up to their first query."""
    rounds = ROUNDS // (4 if quick else 1)
    with backends.lakebase() as local:
        children = [Children({"ENGINE": backends.OURS}), Children(_stock(local))]
        spans = turns([partial(child.run, "fresh") for child in children], rounds)
        yield compared("a fresh process, to its first query", spans)
        for child, way in zip(children, ("django_lakebase", "stock"), strict=True):
            for name, milliseconds in child.steps():
                yield Step(way, name, milliseconds)
        yield _weighed("fresh process", children, "fresh")
        for how, words in FORKED.items():
            for _ in range(max(2, rounds // 4)):
                for child in children:
                    child.run(how)
            taken = [child.spans(how) for child in children]
            yield compared(f"{words}, to its first query", taken)
            yield _weighed(words, children, how)


class Children:
    """The processes of one engine, and what they told."""

    def __init__(self, settings: dict[str, Any]) -> None:
        databases = {"default": settings}
        self._environment = {**os.environ, "BENCH_DATABASES": json.dumps(databases)}
        self.told: dict[str, list[dict[str, Any]]] = {}

    def run(self, how: str) -> None:
        """Run one to its end."""
        started = time.monotonic()
        out = _python(
            "-m", "benchmarks.child_process", how, env=self._environment
        ).stdout
        answer = json.loads(out)
        answer["started"] = started
        self.told.setdefault(how, []).append(answer)

    def steps(self) -> Iterator[tuple[str, float]]:
        """Return the steps of a fresh one: names and median milliseconds."""
        taken: dict[str, list[float]] = {}
        for answer in self.told["fresh"]:
            before = answer["started"]
            for name, ended_at in answer["marks"]:
                taken.setdefault(name, []).append((ended_at - before) * 1000)
                before = ended_at
        yield from ((name, statistics.median(spans)) for name, spans in taken.items())

    def spans(self, how: str) -> list[float]:
        """Return the seconds that workers took."""
        return [span for answer in self.told[how] for span in answer["seconds"]]

    def megabytes(self, how: str) -> list[float]:
        """Return their memory."""
        return [float(answer["megabytes"]) for answer in self.told[how]]


def _weighed(words: str, children: list[Children], how: str) -> Figure:
    ours, theirs = (child.megabytes(how) for child in children)
    found: Ratio = ratio(ours, theirs)
    middles = statistics.median(ours), statistics.median(theirs)
    return Figure(
        what=f"memory (PSS) of {words}, over stock",
        figure=f"{middles[0] - middles[1]:+.0f} MB: {middles[0]:.0f} and "
        f"{middles[1]:.0f} MB",
        ratio=found,
    )


def _stock(local: LocalLakebase) -> dict[str, Any]:
    settings = backends.stock(local).settings_dict
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
    return {name: settings[name] for name in names}


def _python(
    *arguments: str, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**(env or os.environ), "PYTHONDONTWRITEBYTECODE": ""},
    )
