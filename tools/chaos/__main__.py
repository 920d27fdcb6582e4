"""Chaos: ``python -m tools.chaos --seconds 60 --seed 7 [--pool]``."""

import argparse
import secrets
import sys

from . import report
from .experiment import Plan, chaos


def main():
    """Run, print the figures, and end with 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--share", type=int, default=1, help="use 1/SHARE of it")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--pool", action="store_true")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=4, help="of each process")
    parser.add_argument("--budget", type=float, default=3.0, help="connect_budget, s")
    parser.add_argument("--only", default="", help="troubles with this in their names")
    arguments = vars(parser.parse_args())
    arguments["seconds"] /= arguments.pop("share")
    plan = Plan(**arguments)
    way = "with a pool" if plan.pool else "without a pool"
    print(
        f"chaos, {way}: seed {plan.seed}, {plan.processes} processes of "
        f"{plan.threads} threads, connect_budget {plan.budget:g} s",
        flush=True,
    )
    verdict, happened, seconds = chaos(plan, lambda line: print(line, flush=True))
    print()
    for line in report.lines(verdict, happened, seconds):
        print(line)
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
