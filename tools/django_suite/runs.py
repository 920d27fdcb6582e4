"""Runs of Django's tests with one backend, against one local Lakebase."""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from django_lakebase.local.client import LocalLakebase, clean_environment

from .comparison import Outcome, UnfinishedError, read_results
from .source import CACHE, CHECKOUT, Source

# The service offers this extension, but in PostgreSQL only superusers can create it.
UNTRUSTED_EXTENSION = "bloom"
# Which of Django's backends to compare with; the default is its PostgreSQL backend.
STOCK_ENGINES = {"django_lakebase.postgis": "django.contrib.gis.db.backends.postgis"}
# Seconds; longer than any run.
A_DAY = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A backend with its settings and variables, and the number of test processes."""

    name: str
    databases: dict[str, dict[str, Any]]
    variables: dict[str, str] = field(default_factory=dict, repr=False)
    processes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The results of a run, and its seconds, logins and issued tokens."""

    results: dict[str, Outcome]
    seconds: float
    logins: int
    tokens: int


def create_extension(local: LocalLakebase) -> None:
    """
    Create the extension that Django's tests need and an ordinary role cannot create.

    Exits if the server does not have it.
    """
    unix_socket = Path(local.facts["postgres_socket"])
    port = unix_socket.name.rpartition(".")[2]
    with psycopg.connect(
        host=str(unix_socket.parent),
        port=port,
        user="cloud_admin",
        dbname="template1",
        autocommit=True,
    ) as superuser:
        available = superuser.execute("SELECT name FROM pg_available_extensions")
        if UNTRUSTED_EXTENSION not in {name for (name,) in available}:
            raise SystemExit(
                f"This PostgreSQL server does not have the extension "
                f"{UNTRUSTED_EXTENSION}, which Django's tests need, among others. "
                "Install the system's server, version 15 or newer, with its contrib "
                "extensions (Debian: postgresql)."
            )
        superuser.execute(f"CREATE EXTENSION IF NOT EXISTS {UNTRUSTED_EXTENSION}")


def lakebase_backend(
    engine: str, local: LocalLakebase, options: dict[str, Any], processes: int
) -> Backend:
    """Return this project's engine, configured by settings and environment."""
    env = local.env
    # One test sets only PASSWORD, for a native login, which needs HOST and USER.
    database = {
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
        databases={"default": database, "other": {**database, "NAME": "other"}},
        variables=env,
        processes=processes,
    )


def stock_backend(
    engine: str, local: LocalLakebase, options: dict[str, Any], processes: int
) -> Backend:
    """Return Django's backend with the same role and gateway, and a token for a day."""
    env = local.env
    database = {
        "ENGINE": STOCK_ENGINES.get(engine, "django.db.backends.postgresql"),
        "HOST": env["PGHOST"],
        "PORT": env["PGPORT"],
        "USER": env["PGUSER"],
        "PASSWORD": local.issue_token(env["PGUSER"], ttl=A_DAY),
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
            "default": {**database, "NAME": env["PGDATABASE"]},
            "other": {**database, "NAME": "other"},
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
    Run the tests of *labels*, or all tests without labels; raises `UnfinishedError`.

    Keeps the record in the cache folder, under a name that contains *stage*.
    """
    local.reset_counters()
    started = time.monotonic()
    # In a temporary folder, because another run may use the same checkout.
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        record = Path(folder) / "record.jsonl"
        _run_tests(backend, source, labels, record)
        seconds = time.monotonic() - started
        if not record.exists():
            raise UnfinishedError
        with record.open() as lines:
            results = read_results(lines)
        record.replace(CACHE / f"{source.version}-{backend.name}-{stage}.jsonl")
    counters = local.fetch_counters()
    return Run(
        results=results,
        seconds=seconds,
        logins=counters["logins"],
        tokens=counters["credentials_issued"],
    )


def _run_tests(
    backend: Backend, source: Source, labels: list[str], record: Path
) -> None:
    environment = clean_environment(dict(os.environ)) | backend.variables
    environment |= {
        "DJANGO_SUITE_DATABASES": json.dumps(backend.databases),
        "DJANGO_SUITE_RECORD": str(record),
        "PYTHONPATH": str(CHECKOUT),
    }
    # The exit status only says whether a test failed, which the record shows, too.
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
