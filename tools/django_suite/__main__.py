"""
Run Django's test suite on this engine and on Django's backend: ``make django-suite``.

Both run against one local Lakebase, whose tokens live for a minute. The exit status is
0 if all results are equal or differ by design, 1 if there are other differences, and 2
if a run did not finish.
"""

import argparse
import sys
from dataclasses import replace
from typing import Any

from django_lakebase.local.client import LocalLakebase

from . import report, runs
from .comparison import Comparison, Difference, UnfinishedError, compare, runner_label
from .expected_differences import EXPECTED_DIFFERENCES
from .source import Source, prepare

# Seconds.
TOKEN_TTL = 60
# The labels that "database" stands for.
DATABASE = (
    *("aggregation", "annotations", "backends", "basic", "bulk_create", "cache"),
    *("constraints", "custom_columns", "datatypes", "db_functions", "db_utils"),
    *("dbshell", "delete", "expressions", "expressions_window", "fixtures"),
    *("get_or_create", "indexes", "inspectdb", "introspection", "lookup"),
    *("migrate_signals", "migrations", "migrations2", "model_fields"),
    *("multiple_database", "postgres_tests", "prefetch_related", "queries"),
    *("raw_query",),
    *("schema", "select_for_update", "serializers", "servers", "test_runner"),
    *("test_utils", "timezones", "transaction_hooks", "transactions", "update"),
)
# With more differences than this, the cause is not a flaky test: do not run them again.
MAX_RERUN = 100


def main() -> int:
    """Run both, print the differences, return the exit status."""
    options = _build_parser().parse_args()
    labels = [label for word in options.labels for label in _expand(word)]
    source = prepare(options.django)
    try:
        with LocalLakebase.start("--token-ttl", str(TOKEN_TTL)) as local:
            runs.create_extension(local)
            return _compare(options, source, labels, local)
    except UnfinishedError:
        print("A run ended before all its tests had run; see its output above.")
        return 2


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.django_suite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "labels",
        nargs="*",
        help='test labels; "database" stands for the tests that depend most on the '
        "database (default: all tests)",
    )
    parser.add_argument("--django", default="5.2", metavar="VERSION")
    parser.add_argument("--engine", default="django_lakebase")
    parser.add_argument("--pool", action="store_true", help='set OPTIONS["pool"]')
    parser.add_argument("--parallel", type=int, default=2, metavar="PROCESSES")
    return parser


def _expand(word: str) -> tuple[str, ...]:
    return DATABASE if word == "database" else (word,)


def _compare(
    options: argparse.Namespace,
    source: Source,
    labels: list[str],
    local: LocalLakebase,
) -> int:
    extra: dict[str, Any] = {"pool": True} if options.pool else {}
    mode = "pool" if options.pool else "plain"
    # Django's own pool does not survive a fork.
    stock_processes = 1 if options.pool else options.parallel
    backends = (
        runs.lakebase_backend(options.engine, local, extra, options.parallel),
        runs.stock_backend(options.engine, local, extra, stock_processes),
    )
    first = _run_both(backends, source, labels, local, stage=f"{mode}-first")
    found = compare(first[0].results, first[1].results, EXPECTED_DIFFERENCES)
    flaky: list[Difference] = []
    if 0 < len(found.differences) <= MAX_RERUN:
        print("\nrunning the tests that differ again, in one process", flush=True)
        again = sorted({runner_label(pair.test) for pair in found.differences})
        alone = tuple(replace(backend, processes=1) for backend in backends)
        second = _run_both(alone, source, again, local, stage=f"{mode}-again")
        found, flaky = _separate_flaky(found, second)
    names = backends[0].name, backends[1].name
    print(
        f"\nDjango {source.version}, pool {'on' if options.pool else 'off'}, "
        f"PostgreSQL {local.facts['postgres_version']}, tokens of {TOKEN_TTL} s"
    )
    print(report.format_table(names, first))
    print(report.format_comparison(found, flaky))
    if found.differences:
        return 1
    print("no difference")
    return 0


def _run_both(
    backends: tuple[runs.Backend, ...],
    source: Source,
    labels: list[str],
    local: LocalLakebase,
    *,
    stage: str,
) -> tuple[runs.Run, runs.Run]:
    done = []
    for backend in backends:
        print(f"\n{backend.name}, processes: {backend.processes}", flush=True)
        done.append(runs.run(backend, source, labels, local, stage=stage))
    return done[0], done[1]


def _separate_flaky(
    found: Comparison, again: tuple[runs.Run, runs.Run]
) -> tuple[Comparison, list[Difference]]:
    """Return the differences that also occur in the second run, and the others."""
    alone = compare(again[0].results, again[1].results, EXPECTED_DIFFERENCES)
    remaining = {pair.test for pair in alone.differences}
    classes = {runner_label(test) for test in remaining}
    lasting = [
        pair
        for pair in found.differences
        if pair.test in remaining or runner_label(pair.test) in classes
    ]
    flaky = [pair for pair in found.differences if pair not in lasting]
    return replace(found, differences=lasting), flaky


if __name__ == "__main__":
    sys.exit(main())
