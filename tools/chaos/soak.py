"""
Soak: ``python -m tools.chaos.soak --seconds 3600``.

Two processes write, one with a pool and one without, while their credentials live for
20 seconds. Nothing is made to fail. Memory, threads, file descriptors and connections
must be at the end what they were after the first tenth. Needs Linux's /proc.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from django_lakebase.local.client import LocalLakebase

from . import checker, consistency
from .experiment import environment, make_table
from .fault_injector import Writers
from .history import Outcome, read
from .writer import Spec

TOKEN_TTL = 20
BUDGET = 5.0
# The first part of the run is for caches to fill.
WARM_UP = 0.1
# Samples that a mean is made of, at least: a connection may be open or not.
FEWEST = 20
# How much the mean of the last tenth may be above that of the tenth after the warm-up.
BOUNDS = {"RSS, MB": 5.0, "threads": 1.5, "files": 2.0, "connections": 2.0}


def main():
    """Run, print the figures, and end with 1 where something grows or is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--threads", type=int, default=8, help="of each process")
    parser.add_argument("--every", type=float, default=5.0, help="seconds, sampling")
    arguments = parser.parse_args()
    if not Path("/proc/self/status").exists():
        sys.exit("The soak reads memory and threads from /proc, which Linux has.")
    with tempfile.TemporaryDirectory(prefix="lakebase-soak-") as name:
        folder = Path(name)
        samples, seconds, issued, counted, late = soak(arguments, folder)
        units, others = read(folder)
        rows, _ = counted
        wrong = consistency.balance(units, rows)
        wrong += [f"{kind}: {facts}" for kind, facts in others]
        wrong += [str(u.error) for u in units if u.outcome != Outcome.ACKNOWLEDGED]
        wrong += checker.secrets_in(folder)
    wrong += [f"{late} threads or processes did not end"] if late else []
    print(f"soak: {seconds:.0f} s, {len(units)} units, {issued} credentials issued")
    wrong += list(_table(samples))
    print(f"wrong: {len(wrong)}")
    for text in wrong[:20]:
        print(f"  {text[:500]}")
    return 1 if wrong else 0


def soak(arguments, folder):
    """Write for a while; return the samples and what the server counted."""
    with LocalLakebase.start("--token-ttl", str(TOKEN_TTL)) as local:
        make_table(local)
        names = ["no pool", "pool"]
        writers = Writers(
            [
                Spec(
                    number=number,
                    threads=arguments.threads,
                    folder=str(folder),
                    budget=BUDGET,
                    pause=0.4,
                    seed=number,
                    environment=environment(local, BUDGET, pool=bool(number)),
                )
                for number in range(len(names))
            ]
        )
        try:
            writers.await_ready()
            pids = dict(zip(names, writers.pids, strict=True))
            pids["lakebase-local"] = _emulator()
            samples, seconds = _sample(local, pids, arguments)
        finally:
            late = writers.stop()
        issued = local.counters()["credentials_issued"]
        return samples, seconds, issued, consistency.count(local), late


def _emulator():
    """Return the process id of our local Lakebase."""
    for line in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for pid in line.read_text().split():
            if "django_lakebase.local" in Path(f"/proc/{pid}/cmdline").read_text():
                return int(pid)
    raise ProcessLookupError("no local Lakebase among our processes")


def _sample(local, pids, arguments):
    samples, started = defaultdict(list), time.monotonic()
    with consistency.dial(local) as session:
        while (now := time.monotonic() - started) < arguments.seconds:
            for name, pid in pids.items():
                for what, value in _measured(pid).items():
                    samples[name, what].append((now, value))
            [[connections]] = session.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = %s",
                [local.facts["service_principal"]],
            ).fetchall()
            samples["the server", "connections"].append((now, connections))
            time.sleep(arguments.every)
    return samples, time.monotonic() - started


def _measured(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    return {
        "RSS, MB": int(status["VmRSS"].split()[0]) / 1024,
        "threads": int(status["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


def _table(samples):
    """Print a line for each figure; yield those that grew beyond their bound."""
    print(
        f"{'':<16} {'':<12} {'first':>8} {'last':>8} {'least':>8} {'most':>8} "
        f"{'an hour':>9} {'bound':>6}"
    )
    for (name, what), points in samples.items():
        warm = points[int(len(points) * WARM_UP) :]
        values = [value for _, value in warm]
        tenth = max(min(FEWEST, len(values) // 2), len(values) // 10, 1)
        first, last = (
            statistics.fmean(part) for part in (values[:tenth], values[-tenth:])
        )
        slope = 0.0
        if len(warm) > 1:
            slope = statistics.linear_regression(*zip(*warm, strict=True)).slope * 3600
        print(
            f"{name:<16} {what:<12} {first:>8.1f} {last:>8.1f} {min(values):>8.1f} "
            f"{max(values):>8.1f} {slope:>+9.1f} {BOUNDS[what]:>6.1f}"
        )
        if last - first > BOUNDS[what]:
            yield f"{what} of {name} grew from {first:.1f} to {last:.1f}"


if __name__ == "__main__":
    sys.exit(main())
