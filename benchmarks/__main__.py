"""
Run the benchmarks: ``make bench``.

Most benchmarks compare two alternatives that take turns in one run. Their result is the
ratio of the medians, with the interquartile range of the ratios per round.
"""

import argparse
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import django
from django.conf import settings

from benchmarks import (
    backends,
    connect,
    gateway_overhead,
    other_pools,
    persistent_connections,
    pool_requests,
    process_startup,
    report,
    rotation,
)
from benchmarks.measurement import Measurement, Skipped

BENCHMARKS: dict[str, Callable[..., Iterator[report.Result]]] = {
    "connect": connect.connect,
    "verified-tls": connect.verified_tls,
    "token-lifetimes": connect.token_lifetimes,
    "shared-cache": connect.shared_cache,
    "rotation": rotation.rotation,
    "pool": pool_requests.pool,
    "other-pools": other_pools.other_pools,
    "idle": persistent_connections.idle,
    "startup": process_startup.startup,
    "imports": process_startup.imports,
    "unreachable": connect.unreachable,
    "gateway": gateway_overhead.gateway,
}
QUICK = ", in a quick run with a tenth of the work"
DOCS = Path(__file__).parents[1] / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run benchmarks, print the results, and write the page if requested."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="do a tenth of the work")
    add(
        "--only",
        action="append",
        choices=BENCHMARKS,
        help="run only this benchmark and write nothing; may be repeated",
    )
    add(
        "--write",
        action="store_true",
        help="write docs/benchmarks.md and its charts after a full run",
    )
    options = parser.parse_args(arguments)
    if not settings.configured:
        settings.configure(
            USE_TZ=True, DATABASES={"default": {"ENGINE": backends.LAKEBASE}}
        )
        django.setup()
    load = os.getloadavg()[0]
    results: dict[str, list[report.Result]] = {}
    for name in options.only or BENCHMARKS:
        results[name] = []
        for result in run(name, quick=options.quick):
            results[name].append(result)
            print_result(result)
    print(f"load average: {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    if options.write and not options.only:
        machine = describe_machine(load) + (QUICK if options.quick else "")
        report.write(results, machine, DOCS)
        print(f"wrote {DOCS.name}/benchmarks.md")
    has_failed = any(
        isinstance(result, Skipped) and result.is_error
        for section in results.values()
        for result in section
    )
    return int(has_failed)


def run(name: str, *, quick: bool) -> Iterator[report.Result]:
    """Yield the results of a benchmark, and the error if it fails."""
    try:
        yield from BENCHMARKS[name](quick=quick)
    except Exception as exc:  # noqa: BLE001 - keeps the results of the other benchmarks.
        yield Skipped(f"{name} failed: {exc!r}", is_error=True)


def print_result(result: report.Result) -> None:
    """Print one line of the report."""
    if isinstance(result, Measurement):
        line = f"{result.name:<88} {result.value:<50} {report.goal(result)}"
    elif isinstance(result, Skipped):
        line = f"not measured: {result.reason}"
    else:
        line = f"  {result.backend:<16} {result.name:<20} {result.milliseconds:8.0f} ms"
    print(line.replace("**", ""), flush=True)


def describe_machine(load: float) -> str:
    """Return when, where and with which versions the benchmarks ran."""
    cpu_info = Path("/proc/cpuinfo")
    is_virtual = cpu_info.exists() and "hypervisor" in cpu_info.read_text()
    packages = ", ".join(
        f"{label} {version(name)}"
        for label, name in (
            ("Django", "django"),
            ("psycopg", "psycopg"),
            ("psycopg_pool", "psycopg-pool"),
            ("databricks-sdk", "databricks-sdk"),
        )
    )
    with backends.running_lakebase():
        connection = backends.lakebase_connection()
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            server = str(cursor.fetchone()[0]).split()[0]
        connection.close()
    return (
        f"{datetime.now(UTC):%B %Y}, {os.cpu_count()} cores of a "
        f"{'shared virtual ' if is_virtual else ''}machine with {platform.system()}, "
        f"load average {load:.1f} at the start, "
        f"Python {platform.python_version()}, {packages}, PostgreSQL {server}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
