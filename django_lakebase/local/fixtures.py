"""
A pytest fixture that gives a project's tests a local Lakebase.

In conftest.py: ``pytest_plugins = ["django_lakebase.local.fixtures"]``, and for
pytest-django::

    @pytest.fixture(scope="session")
    def django_db_modify_db_settings(
        lakebase, django_db_modify_db_settings_parallel_suffix
    ): ...
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from .client import call

# What a parent's environment may say of another database or workspace.
FOREIGN = ("DATABRICKS_", "ARM_", "PG", "LAKEBASE_", "ENDPOINT_NAME")
# Seconds.
STOPS_WITHIN = 30.0


class LocalLakebase:
    """A running local Lakebase: its variables, facts, faults and counters."""

    def __init__(self, env: dict[str, str], facts: dict[str, Any]) -> None:
        self.env, self.facts = env, facts
        self.url = env["LAKEBASE_LOCAL_URL"]

    @classmethod
    @contextlib.contextmanager
    def start(cls, *options: str) -> Iterator["LocalLakebase"]:
        """Start one with the *options* of ``lakebase-local start``, and stop it."""
        command = [sys.executable, "-m", "django_lakebase.local", "start"]
        with subprocess.Popen(  # noqa: S603 - our own program.
            [*command, *options, "--format", "json"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                if not line:
                    pytest.fail(f"lakebase-local ended with {process.wait()}")
                told = json.loads(line)
                yield cls(told["env"], told["facts"])
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(STOPS_WITHIN)

    @classmethod
    def running(cls, url: str) -> "LocalLakebase":
        """Return the one under which this process was started."""
        env = {k: v for k, v in os.environ.items() if k.startswith(FOREIGN)}
        return cls(env, call(url, "GET", "facts"))

    def set_fault(self, name: str, **settings: object) -> None:
        """Switch the fault *name* on."""
        call(self.url, "PUT", f"faults/{name}", settings)

    def clear_faults(self) -> None:
        """Switch all faults off."""
        call(self.url, "DELETE", "faults")

    @contextlib.contextmanager
    def fault(self, name: str, **settings: object) -> Iterator[None]:
        """Have the fault *name* on for a while."""
        self.set_fault(name, **settings)
        try:
            yield
        finally:
            call(self.url, "DELETE", f"faults/{name}")

    def counters(self) -> dict[str, Any]:
        """Return what was counted since the last reset."""
        counted: dict[str, Any] = call(self.url, "GET", "counters")
        return counted

    def reset_counters(self) -> None:
        """Count from nothing."""
        call(self.url, "DELETE", "counters")

    def issue(self, user: str, ttl: float = 3600.0) -> str:
        """Return a database token for *user*; one below 0 s of life is expired."""
        answer = call(self.url, "POST", "credentials", {"user": user, "ttl": ttl})
        return str(answer["token"])


@pytest.fixture(scope="session")
def lakebase() -> Iterator[LocalLakebase]:
    """Give a local Lakebase, and set the variables that lead to it."""
    url = os.environ.get("LAKEBASE_LOCAL_URL")
    if url:
        yield LocalLakebase.running(url)
        return
    before = dict(os.environ)
    with LocalLakebase.start() as local:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            del os.environ[name]
        os.environ.update(local.env)
        try:
            yield local
        finally:
            os.environ.clear()
            os.environ.update(before)
