"""
Soak test: write for an hour without faults, and check for leaks (``make soak``).

Two processes write, one with a pool and one without, with credentials that live for 20
seconds. At the end, memory, threads, file descriptors and connections must be what they
were after the first tenth. Needs Linux for /proc.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from django_lakebase.local.client import LocalLakebase

from . import checker, consistency
from .experiment import create_table, writer_environment
from .fault_injector import WriterProcesses
from .history import Outcome, read_histories
from .writer import Spec

# Seconds.
TOKEN_TTL = 20
BUDGET = 5.0
# The first part of the run, in which caches fill.
WARM_UP = 0.1
# The least number of samples for a mean, because the number of connections varies.
MIN_SAMPLES = 20
# How much the mean of the last tenth may exceed that of the tenth after the warm-up.
LIMITS = {"RSS, MB": 5.0, "threads": 1.5, "files": 2.0, "connections": 2.0}

# Pairs of seconds since the start and a value, for each process and quantity.
Samples = Mapping[tuple[str, str], list[tuple[float, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The samples of a run, what the server counted, and the threads killed."""

    samples: Samples
    seconds: float
    credentials_issued: int
    rows: consistency.RowCounts
    killed: int


def main() -> int:
    """Run, print the report, and return 1 if there are violations."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.chaos.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=3600, help="default: 3600")
    parser.add_argument("--threads", type=int, default=8, help="threads per process")
    parser.add_argument(
        "--interval", type=float, default=5.0, help="seconds between samples"
    )
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        sys.exit("The soak test reads memory and threads from /proc and needs Linux.")
    with tempfile.TemporaryDirectory(prefix="lakebase-soak-") as name:
        folder = Path(name)
        result = run_soak(options, folder)
        operations, incidents = read_histories(folder)
        violations = consistency.find_violations(operations, result.rows)
        violations += [f"{kind}: {values}" for kind, values in incidents]
        violations += [
            str(o.error) for o in operations if o.outcome != Outcome.ACKNOWLEDGED
        ]
        violations += checker.find_secrets(folder)
    if result.killed:
        violations.append(f"{result.killed} threads or processes did not end")
    print(
        f"soak: {result.seconds:.0f} s, {len(operations)} operations, "
        f"{result.credentials_issued} credentials issued"
    )
    violations += _print_table(result.samples)
    print(f"violations: {len(violations)}")
    for text in violations[:20]:
        print(f"  {text[:500]}")
    return 1 if violations else 0


def run_soak(options: argparse.Namespace, folder: Path) -> Result:
    """Run the writers, and sample their resources meanwhile."""
    with LocalLakebase.start("--token-ttl", str(TOKEN_TTL)) as local:
        create_table(local)
        names = ["no pool", "pool"]
        writers = WriterProcesses(
            [
                Spec(
                    number=number,
                    threads=options.threads,
                    folder=str(folder),
                    budget=BUDGET,
                    pause=0.4,
                    seed=number,
                    environment=writer_environment(local, BUDGET, pool=bool(number)),
                )
                for number in range(len(names))
            ]
        )
        try:
            writers.await_ready()
            pids = dict(zip(names, writers.pids, strict=True))
            pids["lakebase-local"] = _emulator_pid()
            samples, seconds = _sample(local, pids, options)
        finally:
            killed = writers.stop()
        issued = local.fetch_counters()["credentials_issued"]
        rows, _ = consistency.count_rows(local)
    return Result(
        samples=samples,
        seconds=seconds,
        credentials_issued=issued,
        rows=rows,
        killed=killed,
    )


def _emulator_pid() -> int:
    """Return the process id of the local Lakebase, which is a child of this process."""
    for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for pid in children.read_text().split():
            if "django_lakebase.local" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
    raise ProcessLookupError("no child process is a local Lakebase")


def _sample(
    local: LocalLakebase, pids: Mapping[str, int | None], options: argparse.Namespace
) -> tuple[Samples, float]:
    samples: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    started = time.monotonic()
    with consistency.connect_as_owner(local) as connection:
        while (now := time.monotonic() - started) < options.seconds:
            for name, pid in pids.items():
                for quantity, value in _read_resources(pid).items():
                    samples[name, quantity].append((now, value))
            [[connections]] = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s",
                [local.facts["service_principal"]],
            ).fetchall()
            samples["the server", "connections"].append((now, connections))
            time.sleep(options.interval)
    return samples, time.monotonic() - started


def _read_resources(pid: int | None) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "RSS, MB": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


def _print_table(samples: Samples) -> Iterator[str]:
    """Print a line for each quantity; yield a text for each that grew too much."""
    print(
        f"{'':<16} {'':<12} {'first':>8} {'last':>8} {'least':>8} {'most':>8} "
        f"{'per hour':>9} {'limit':>6}"
    )
    for (name, quantity), points in samples.items():
        warm = points[int(len(points) * WARM_UP) :]
        values = [value for _, value in warm]
        first, last = _mean_of_ends(values)
        slope = 0.0
        if len(warm) > 1:
            slope = statistics.linear_regression(*zip(*warm, strict=True)).slope * 3600
        limit = LIMITS[quantity]
        print(
            f"{name:<16} {quantity:<12} {first:>8.1f} {last:>8.1f} {min(values):>8.1f} "
            f"{max(values):>8.1f} {slope:>+9.1f} {limit:>6.1f}"
        )
        if last - first > limit:
            yield f"{quantity} of {name} grew from {first:.1f} to {last:.1f}"


def _mean_of_ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the means of the first and of the last tenth of *values*."""
    tenth = max(min(MIN_SAMPLES, len(values) // 2), len(values) // 10, 1)
    return statistics.fmean(values[:tenth]), statistics.fmean(values[-tenth:])


if __name__ == "__main__":
    sys.exit(main())
