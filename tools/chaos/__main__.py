"""Inject faults while rows are written: ``make chaos``."""

import argparse
import secrets
import sys

from . import report
from .experiment import Options, run_experiment


def main() -> int:
    """Run, print the report, and return 1 if there are violations."""
    parser = argparse.ArgumentParser(prog="python -m tools.chaos", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=float, default=60, help="duration (default: 60)")
    add("--share", type=int, default=1, help="run for 1/SHARE of --seconds")
    add(
        "--seed",
        type=int,
        default=secrets.randbelow(10**6),
        help="seed of the schedule (default: a random one, which is printed)",
    )
    add("--pool", action="store_true", help='set OPTIONS["pool"]')
    add("--processes", type=int, default=4, help="writer processes (default: 4)")
    add("--threads", type=int, default=4, help="threads per process (default: 4)")
    add("--budget", type=float, default=3.0, help="connect_budget in seconds")
    add("--only", default="", help="use only faults whose names contain this text")
    arguments = vars(parser.parse_args())
    arguments["seconds"] /= arguments.pop("share")
    options = Options(**arguments)
    mode = "with a pool" if options.pool else "without a pool"
    print(
        f"chaos, {mode}: seed {options.seed}, {options.processes} processes with "
        f"{options.threads} threads, connect_budget {options.budget:g} s",
        flush=True,
    )
    result = run_experiment(options, lambda line: print(line, flush=True))
    print()
    for line in report.format_report(result):
        print(line)
    return 1 if result.verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
