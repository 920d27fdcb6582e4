"""Benchmark of what each process costs: imports, first query and memory."""

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
from benchmarks.measurement import (
    Measurement,
    Step,
    compare,
    format_seconds,
    measure_alternately,
    ratio_of,
)
from django_lakebase.local.client import LocalLakebase

ROUNDS = 12
TIMED = (
    "from django.conf import settings; settings.configure(); import time;"
    "t = time.perf_counter(); {}; print(time.perf_counter() - t)"
)
FORKED = {
    "forked": "a worker forked by a parent that has loaded the project",
    "forked-warm": "a worker forked by a parent that has also run a query",
    "forked-warmed-up": "a worker forked by a parent that has called warm()",
}


def imports(*, quick: bool) -> Iterator[Measurement]:
    """Compare importing the engine to importing Django's own backend."""
    ours: list[float] = []
    theirs: list[float] = []
    # The first import compiles the modules.
    _import_seconds("django_lakebase.base")
    for _ in range(20 // (4 if quick else 1)):
        ours.append(_import_seconds("django_lakebase.base"))
        theirs.append(_import_seconds("django.db.backends.postgresql.base"))
    # The minimum, because noise can only add time.
    difference = (min(ours) - min(theirs)) * 1000
    ratio = ratio_of(ours, theirs)
    yield Measurement(
        name="importing the engine / stock",
        value=f"{ratio}, {difference:+.0f} ms",
        goal="<= +15 ms",
        is_met=difference <= 15,
        ratio=ratio,
    )
    statement = "from django_lakebase.auth.sdk import import_sdk; import_sdk()"
    used, whole = (
        statistics.median(_python_seconds(code) for _ in range(5))
        for code in (statement, "import databricks.sdk")
    )
    yield Measurement(
        name="importing what a credential needs of databricks-sdk",
        value=f"{format_seconds(used)}; all of it: {format_seconds(whole)}, of which "
        f"{_service_share():.0%} for its service modules",
    )


def _import_seconds(module: str) -> float:
    """Return the seconds that a new process takes to import *module*."""
    return _python_seconds(f"import {module}")


def _python_seconds(statement: str) -> float:
    """Return the seconds that *statement* takes in a new process."""
    return float(_python("-c", TIMED.format(statement)).stdout)


def _service_share() -> float:
    """Return the share of the SDK's import time that its service modules take."""
    report = _python("-X", "importtime", "-c", "import databricks.sdk").stderr
    total = services = 0
    for line in report.splitlines():
        own, cumulative, name = line.removeprefix("import time:").split("|")
        if name.strip().startswith("databricks.sdk.service"):
            services += int(own)
        if name.strip() == "databricks.sdk":
            total = int(cumulative)
    return services / total


def startup(*, quick: bool) -> Iterator[Measurement | Step]:
    """Compare new and forked processes up to their first query."""
    rounds = ROUNDS // (4 if quick else 1)
    with backends.running_lakebase() as local:
        pair = [
            ChildProcesses({"ENGINE": backends.LAKEBASE}),
            ChildProcesses(_stock_settings(local)),
        ]
        seconds = measure_alternately(
            [partial(children.run, "fresh") for children in pair], rounds
        )
        yield compare("a new process, until its first query", seconds)
        for children, backend in zip(pair, ("django_lakebase", "stock"), strict=True):
            for name, milliseconds in children.steps():
                yield Step(backend, name, milliseconds)
        yield _compare_memory("a new process", pair, "fresh")
        for mode, description in FORKED.items():
            for _ in range(max(2, rounds // 4)):
                for children in pair:
                    children.run(mode)
            seconds = [children.seconds(mode) for children in pair]
            yield compare(f"{description}, until its first query", seconds)
            yield _compare_memory(description, pair, mode)


class ChildProcesses:
    """The processes of one backend, and the results that they have printed."""

    def __init__(self, settings: dict[str, Any]) -> None:
        databases = {"default": settings}
        self._environment = {**os.environ, "BENCH_DATABASES": json.dumps(databases)}
        self._results: dict[str, list[dict[str, Any]]] = {}

    def run(self, mode: str) -> None:
        """Run a process until it exits."""
        started = time.monotonic()
        child = _python("-m", "benchmarks.startup_child", mode, env=self._environment)
        result = json.loads(child.stdout)
        result["started"] = started
        self._results.setdefault(mode, []).append(result)

    def steps(self) -> Iterator[tuple[str, float]]:
        """Yield each step of a new process with its median milliseconds."""
        milliseconds: dict[str, list[float]] = {}
        for result in self._results["fresh"]:
            previous = result["started"]
            for name, ended_at in result["marks"]:
                milliseconds.setdefault(name, []).append((ended_at - previous) * 1000)
                previous = ended_at
        for name, values in milliseconds.items():
            yield name, statistics.median(values)

    def seconds(self, mode: str) -> list[float]:
        """Return the seconds until the first query of each worker."""
        return [span for result in self._results[mode] for span in result["seconds"]]

    def megabytes(self, mode: str) -> list[float]:
        """Return the memory of each process."""
        return [float(result["megabytes"]) for result in self._results[mode]]


def _compare_memory(
    description: str, pair: list[ChildProcesses], mode: str
) -> Measurement:
    ours, theirs = (children.megabytes(mode) for children in pair)
    medians = statistics.median(ours), statistics.median(theirs)
    return Measurement(
        name=f"memory (PSS) of {description}, engine / stock",
        value=f"{medians[0] - medians[1]:+.0f} MB: {medians[0]:.0f} and "
        f"{medians[1]:.0f} MB",
        ratio=ratio_of(ours, theirs),
    )


def _stock_settings(local: LocalLakebase) -> dict[str, Any]:
    settings = backends.stock_connection(local).settings_dict
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
