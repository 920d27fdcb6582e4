"""
Compatibility tests with other Django packages: ``make packages``.

Each package has its own settings, so its tests run in a separate process.
"""

import argparse
import os
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).parent
# Distributions whose name differs from the name of the folder.
DISTRIBUTIONS = {"opentelemetry": "opentelemetry-instrumentation-django"}


def main() -> int:
    """Run the tests, print a line for each package, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.packages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        help="folders of tools/packages (default: those of all installed packages)",
    )
    names = parser.parse_args().names or sorted(
        file.parent.name for file in HERE.glob("*/test_compatibility.py")
    )
    # Each environment contains only the packages that support its Django.
    lines = [run_tests(name) for name in names if installed_version(name)]
    print(f"\nDjango {version('django')}, Python {sys.version.split()[0]}:")
    print(*lines, sep="\n")
    return 1 if any(" FAILED " in line for line in lines) else 0


def installed_version(name: str) -> str:
    """Return the version of the package that folder *name* tests, or ""."""
    try:
        return version(DISTRIBUTIONS.get(name, name))
    except PackageNotFoundError:
        return ""


def run_tests(name: str) -> str:
    """Run the tests in folder *name*; return a line with the result."""
    started = time.monotonic()
    # Warnings in a package's code are a matter for its authors.
    pytest = [sys.executable, "-m", "pytest", "-q", "-W", "ignore", "--tb=short"]
    completed = subprocess.run(
        [*pytest, str(HERE / name), f"--ds=tools.packages.{name}.settings"],
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    seconds = time.monotonic() - started
    result = "FAILED" if completed.returncode else "passed"
    return f"{name:<24} {installed_version(name):<8} {result} {seconds:6.1f} s"


if __name__ == "__main__":
    sys.exit(main())
