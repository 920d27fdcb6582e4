"""Runs of Django's tests, each with one backend, on one local Lakebase."""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from django_lakebase.local.client import LocalLakebase
from django_lakebase.local.emulator import clean

from .comparison import Outcome, UnfinishedError, read
from .source import CACHE, CHECKOUT, Source

# PostgreSQL lets superusers alone make it; the service's list of extensions has it.
UNTRUSTED = "bloom"
# Django's own engines, by ours; the others' is its PostgreSQL one.
TWINS = {"django_lakebase.postgis": "django.contrib.gis.db.backends.postgis"}
# Seconds: longer than any run.
A_DAY = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A backend, its settings and variables, and in how many processes it is run."""

    name: str
    databases: dict[str, dict[str, Any]]
    variables: dict[str, str] = field(default_factory=dict, repr=False)
    processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a run gave, and what it cost."""

    results: dict[str, Outcome]
    seconds: float
    logins: int
    tokens: int


def furnish(local: LocalLakebase) -> None:
    """Make what Django's tests want and an ordinary role may not make, or exit."""
    socket = Path(local.facts["postgres_socket"])
    port = socket.name.rpartition(".")[2]
    with psycopg.connect(
        host=str(socket.parent),
        port=port,
        user="cloud_admin",
        dbname="template1",
        autocommit=True,
    ) as superuser:
        known = superuser.execute("SELECT name FROM pg_available_extensions")
        if UNTRUSTED not in {name for (name,) in known}:
            raise SystemExit(
                f"This PostgreSQL has no extension {UNTRUSTED}, and Django's tests "
                "need that and others. Install the system's server, from version 15 "
                "on, with its contrib extensions (Debian: postgresql)."
            )
        superuser.execute(f"CREATE EXTENSION IF NOT EXISTS {UNTRUSTED}")


def ours(engine: str, local: LocalLakebase, options: dict[str, Any], processes: int):
    """Return our backend, which finds in the variables what its settings do not say."""
    env = local.env
    # A test sets PASSWORD alone, for a native login; HOST and USER go with that.
    own = {
        "ENGINE": engine,
        "HOST": env["PGHOST"],
        "USER": env["PGUSER"],
        "OPTIONS": {
            "endpoint": env["ENDPOINT_NAME"],
            "hostaddr": env["LAKEBASE_HOSTADDR"],
            **options,
        },
    }
    return Backend(
        name=engine,
        databases={"default": own, "other": {**own, "NAME": "other"}},
        variables=env,
        processes=processes,
    )


def stock(
    engine: str, local: LocalLakebase, options: dict[str, Any], processes: int
) -> Backend:
    """Return Django's own, as the same role on the same gateway, with a long token."""
    env = local.env
    own = {
        "ENGINE": TWINS.get(engine, "django.db.backends.postgresql"),
        "HOST": env["PGHOST"],
        "PORT": env["PGPORT"],
        "USER": env["PGUSER"],
        "PASSWORD": local.issue(env["PGUSER"], ttl=A_DAY),
        "OPTIONS": {
            "hostaddr": env["LAKEBASE_HOSTADDR"],
            "sslmode": env["PGSSLMODE"],
            "sslrootcert": env["PGSSLROOTCERT"],
            **options,
        },
    }
    return Backend(
        name="stock",
        databases={
            "default": {**own, "NAME": env["PGDATABASE"]},
            "other": {**own, "NAME": "other"},
        },
        processes=processes,
    )


def run(
    backend: Backend,
    source: Source,
    labels: list[str],
    local: LocalLakebase,
    *,
    stage: str,
) -> Run:
    """
    Run the tests of *labels*, all without any; raises UnfinishedError.

    The record stays, under a name with *stage*.
    """
    local.reset_counters()
    started = time.monotonic()
    # In a folder of its own: another run may be under way in the same checkout.
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        record = Path(folder) / "record.jsonl"
        _run_tests(backend, source, labels, record)
        seconds = time.monotonic() - started
        if not record.exists():
            raise UnfinishedError
        with record.open() as lines:
            results = read(lines)
        record.replace(CACHE / f"{source.version}-{backend.name}-{stage}.jsonl")
    counted = local.counters()
    return Run(
        results=results,
        seconds=seconds,
        logins=counted["logins"],
        tokens=counted["credentials_issued"],
    )


def _run_tests(
    backend: Backend, source: Source, labels: list[str], record: Path
) -> None:
    environment = clean(dict(os.environ)) | backend.variables
    environment |= {
        "DJANGO_SUITE_DATABASES": json.dumps(backend.databases),
        "DJANGO_SUITE_RECORD": str(record),
        "PYTHONPATH": str(CHECKOUT),
    }
    # Its exit status says that a test failed, which is for the comparison to judge.
    subprocess.run(
        [
            *(source.python, "runtests.py", "--noinput"),
            "--settings=tools.django_suite.settings",
            f"--parallel={backend.processes}",
            *labels,
        ],
        cwd=source.tests,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
    )
