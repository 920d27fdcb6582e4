"""
Django's own test suite on this engine and on Django's: ``make django-suite``.

Both run on one local Lakebase whose tokens live for a minute. The exit status is 0
if there is no difference, but for those by design.
"""

import argparse
import sys
from dataclasses import replace
from typing import Any

from django_lakebase.local.client import LocalLakebase

from . import report, runs
from .comparison import Comparison, Difference, UnfinishedError, compare, label
from .expected_differences import DESIGNED
from .source import Source, prepare

TOKEN_TTL = 60
# What the word "database" stands for among the labels.
DATABASE = (
    *("aggregation", "annotations", "backends", "basic", "bulk_create", "cache"),
    *("constraints", "custom_columns", "datatypes", "db_functions", "db_utils"),
    *("dbshell", "delete", "expressions", "expressions_window", "fixtures"),
    *("get_or_create", "indexes", "inspectdb", "introspection", "lookup"),
    *("migrate_signals", "migrations", "migrations2", "model_fields"),
    *(
        "multiple_database",
        "postgres_tests",
        "prefetch_related",
        "queries",
        "raw_query",
    ),
    *("schema", "select_for_update", "serializers", "servers", "test_runner"),
    *("test_utils", "timezones", "transaction_hooks", "transactions", "update"),
)
# More differences than this are no chance: they are not run again.
MOST_RERUN = 100


def main() -> int:
    """Run both, print the difference, return the exit status."""
    options = _parser().parse_args()
    labels = [word for given in options.labels for word in _expanded(given)]
    source = prepare(options.django)
    try:
        with LocalLakebase.start("--token-ttl", str(TOKEN_TTL)) as local:
            runs.furnish(local)
            return _compare(options, source, labels, local)
    except UnfinishedError:
        print("A run ended before its tests did; its output above says why.")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools.django_suite", description=__doc__)
    parser.add_argument("labels", nargs="*", help="default: all; database: that part")
    parser.add_argument("--django", default="5.2", metavar="VERSION")
    parser.add_argument("--engine", default="django_lakebase")
    parser.add_argument("--pool", action="store_true", help='OPTIONS["pool"] = True')
    parser.add_argument("--parallel", type=int, default=2, metavar="PROCESSES")
    return parser


def _expanded(word: str) -> tuple[str, ...]:
    return DATABASE if word == "database" else (word,)


def _compare(
    options: argparse.Namespace,
    source: Source,
    labels: list[str],
    local: LocalLakebase,
) -> int:
    extra: dict[str, Any] = {"pool": True} if options.pool else {}
    mode = "pool" if options.pool else "plain"
    # A pool of Django's own does not survive the fork.
    forks = 1 if options.pool else options.parallel
    backends = (
        runs.ours(options.engine, local, extra, options.parallel),
        runs.stock(options.engine, local, extra, forks),
    )
    first = _both(backends, source, labels, local, stage=f"{mode}-first")
    found = compare(first[0].results, first[1].results, DESIGNED)
    calmed: list[Difference] = []
    if 0 < len(found.differing) <= MOST_RERUN:
        print("\nagain, alone, what was different", flush=True)
        again = sorted({label(pair.test) for pair in found.differing})
        alone = tuple(replace(backend, processes=1) for backend in backends)
        second = _both(alone, source, again, local, stage=f"{mode}-again")
        found, calmed = _settled(found, second)
    names = backends[0].name, backends[1].name
    print(
        f"\nDjango {source.version}, pool {'on' if options.pool else 'off'}, ", end=""
    )
    print(f"PostgreSQL {local.facts['postgres_version']}, tokens of {TOKEN_TTL} s")
    print(report.table(names, first))
    print(report.findings(found, calmed))
    if found.differing:
        return 1
    print("no difference")
    return 0


def _both(
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


def _settled(
    found: Comparison, again: tuple[runs.Run, runs.Run]
) -> tuple[Comparison, list[Difference]]:
    """Return what stays different when run alone, and what does not."""
    alone = compare(again[0].results, again[1].results, DESIGNED)
    remaining = {pair.test for pair in alone.differing}
    classes = {label(test) for test in remaining}
    stays = [
        pair
        for pair in found.differing
        if pair.test in remaining or label(pair.test) in classes
    ]
    calmed = [pair for pair in found.differing if pair not in stays]
    return replace(found, differing=stays), calmed


if __name__ == "__main__":
    sys.exit(main())
