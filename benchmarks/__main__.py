"""
The measured figures: ``make bench``.

Each figure compares two ways in one run, turn by turn, and is a ratio of medians with
the middle half of the rounds' own ratios.
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
    emulator_gateway,
    idle_connections,
    other_pools,
    pool_requests,
    process_startup,
    report,
    rotation,
)
from benchmarks.measurement import Figure, Skipped

SECTIONS: dict[str, Callable[..., Iterator[report.Result]]] = {
    "connect": connect.connect,
    "many": connect.many,
    "herd": connect.herd,
    "rotation": rotation.rotation,
    "pools": pool_requests.pools,
    "others": other_pools.others,
    "idle": idle_connections.idle,
    "processes": process_startup.processes,
    "imports": process_startup.imports,
    "unreachable": connect.unreachable,
    "gateway": emulator_gateway.gateway,
}
QUICK = ", in a quick run with a tenth of the work"
DOCS = Path(__file__).parents[2] / "docs"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; write the page where that was asked for."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="a tenth of the work")
    add("--only", action="append", choices=SECTIONS, help="this part; writes no page")
    add("--write", action="store_true", help="write docs/benchmarks.md of a whole run")
    options = parser.parse_args(arguments)
    if not settings.configured:
        settings.configure(
            USE_TZ=True, DATABASES={"default": {"ENGINE": backends.OURS}}
        )
        django.setup()
    load = os.getloadavg()[0]
    results: dict[str, list[report.Result]] = {}
    for name in options.only or SECTIONS:
        results[name] = []
        for result in measured(name, quick=options.quick):
            results[name].append(result)
            say(result)
    print(f"load average: {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end")
    if options.write and not options.only:
        words = machine(load) + (QUICK if options.quick else "")
        report.write(results, words, DOCS)
        print(f"written: {DOCS.name}/benchmarks.md")
    return int(any("broke off" in str(r) for part in results.values() for r in part))


def measured(name: str, *, quick: bool) -> Iterator[report.Result]:
    """Yield the results of a part, and why it broke off if it did."""
    try:
        yield from SECTIONS[name](quick=quick)
    except Exception as exc:  # noqa: BLE001 - ten minutes of other parts are kept.
        yield Skipped(f"{name} broke off: {exc!r}")


def say(result: report.Result) -> None:
    """Print one line of the report."""
    if isinstance(result, Figure):
        line = f"{result.what:<78} {result.figure:<50} {report.goal(result)}"
    elif isinstance(result, Skipped):
        line = f"skipped: {result.why}"
    else:
        line = f"  {result.way:<16} {result.name:<20} {result.milliseconds:8.0f} ms"
    print(line.replace("**", ""), flush=True)


def machine(load: float) -> str:
    """Return in words where and when the figures were taken."""
    facts = Path("/proc/cpuinfo")
    is_virtual = facts.exists() and "hypervisor" in facts.read_text()
    packages = ", ".join(
        f"{words} {version(name)}"
        for words, name in (
            ("Django", "django"),
            ("psycopg", "psycopg"),
            ("psycopg_pool", "psycopg-pool"),
            ("databricks-sdk", "databricks-sdk"),
        )
    )
    with backends.lakebase():
        connection = backends.ours()
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            server = str(cursor.fetchone()[0]).split()[0]
        connection.close()
    return (
        f"{datetime.now(UTC):%B %Y}, {os.cpu_count()} cores of a "
        f"{'shared virtual ' if is_virtual else ''}machine with {platform.system()}, "
        f"whose load average was {load:.1f} at the start, "
        f"Python {platform.python_version()}, {packages}, PostgreSQL {server}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
