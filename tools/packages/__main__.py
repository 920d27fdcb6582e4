"""
The journeys with other packages: ``make packages``, or those that are named.

Each has settings of its own, so each runs in a process of its own.
"""

import argparse
import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
# Where the folder is not named as the distribution.
DISTRIBUTIONS = {"opentelemetry": "opentelemetry-instrumentation-django"}


def main() -> int:
    """Run, print a line for each, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="folders of tools/packages")
    names = parser.parse_args().names or sorted(
        file.parent.name for file in HERE.glob("*/test_journey.py")
    )
    # One environment has what works on the newest Django, another the rest.
    lines = [line_of(name) for name in names if installed(name)]
    print(f"\nwith Django {version('django')}, Python {sys.version.split()[0]}:")
    print(*lines, sep="\n")
    return 1 if any(" FAILED " in line for line in lines) else 0


def installed(name: str) -> str:
    """Return the version of what *name* is the journey of, or nothing."""
    try:
        return version(DISTRIBUTIONS.get(name, name))
    except PackageNotFoundError:
        return ""


def line_of(name: str) -> str:
    """Run the journey of *name*; return what is to be said about it."""
    started = time.monotonic()
    # Warnings are for the packages' own authors.
    pytest = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "--tb=short"]
    done = subprocess.run(
        [*pytest, str(HERE / name), f"--ds=tools.packages.{name}.settings"],
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    seconds = time.monotonic() - started
    verdict = "FAILED" if done.returncode else "passed"
    return f"{name:<24} {installed(name):<8} {verdict} {seconds:6.1f} s"


if __name__ == "__main__":
    sys.exit(main())
