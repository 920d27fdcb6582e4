"""The project in tests/projects/shop, and runs of its tests."""

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django_lakebase.local.client import LocalLakebase
from tests.helpers.plain_psycopg import open_session

FOLDER = Path(__file__).parents[1] / "projects" / "shop"
MANAGE = (sys.executable, "manage.py", "test", "--noinput")
# Only the plugins that its user has installed.
PLUGINS = ("-p", "pytest_django.plugin", "-p", "xdist.plugin", "-p", "lakebase_local")
PYTEST = (sys.executable, "-m", "pytest", *PLUGINS, "-p", "no:cacheprovider")
# A long budget: several processes import the SDK at the same time.
POOLED: dict[str, Any] = {
    "ENGINE": "django_lakebase",
    "OPTIONS": {"pool": True, "connect_budget": 120},
}
# A query while Django starts opens a pool to the real database.
EARLY = {"SHOP_READS_EARLY": "yes"}
# Prefixes of variables that this process's own test runner sets.
OURS = ("DJANGO_", "PYTEST_", "PG", "SHOP_")
KEPT = ("a real row",)
# A migrated table, so that a test that uses the real database by mistake succeeds.
TABLE = """
CREATE TABLE catalog_product (id bigserial PRIMARY KEY, name varchar(50) NOT NULL);
INSERT INTO catalog_product (name) VALUES ('a real row')
"""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished test run: exit status, output, and the notes of its tests."""

    status: int
    output: str
    notes: list[dict[str, Any]]

    def each(self, *keys: str) -> set[Any]:
        """Return the different values of *keys* in the notes."""
        found = {tuple(note[key] for key in keys) for note in self.notes}
        return found if len(keys) > 1 else {value for (value,) in found}


class Shop:
    """The project and its database *name* on the local Lakebase."""

    def __init__(self, local: LocalLakebase, folder: Path) -> None:
        self.local = local
        self.name = f"shop_{uuid.uuid4().hex[:8]}"
        self._notes = folder / "notes"

    def run(
        self, *command: str, databases: dict[str, Any] | None = None, **variables: str
    ) -> Run:
        """Run *command* in the project's folder until it exits."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        env |= {**self.local.env, "PGDATABASE": self.name, **variables}
        env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        env["SHOP_NOTES"] = str(self._notes)
        if "--parallel=2" in command or "-n" in command:
            env["SHOP_WORKERS"] = "2"
        if databases:
            env["SHOP_DATABASES"] = json.dumps(databases)
        self._notes.write_text("")
        ended = subprocess.run(
            command,
            cwd=FOLDER,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        notes = [json.loads(line) for line in self._notes.read_text().splitlines()]
        return Run(ended.returncode, ended.stdout, notes)

    def sql(self, sql: str, **own: Any) -> list[tuple[Any, ...]]:
        """Return the rows of *sql*; *own* parameters may name another role."""
        with open_session(self.local, **own) as session:
            found = session.execute(sql)
            return found.fetchall() if found.description else []

    def test_databases(self, **own: Any) -> dict[str, int]:
        """Return the existing test databases and their OIDs."""
        sql = "SELECT datname, oid FROM pg_database WHERE datname LIKE 'test%'"
        found: dict[str, int] = dict(self.sql(sql, **own))
        return {name: oid for name, oid in found.items() if self.name in name}

    def assert_nothing_is_left(self, **own: Any) -> None:
        """Check that no test database exists, and that the real one is unchanged."""
        rows = self.sql("SELECT name FROM catalog_product", dbname=self.name, **own)
        assert rows == [KEPT]
        assert self.test_databases(**own) == {}

    def drop_test_databases(self, **own: Any) -> None:
        """Drop the test databases that were kept."""
        for name in self.test_databases(**own):
            self.sql(f'DROP DATABASE "{name}" WITH (FORCE)', **own)


@contextlib.contextmanager
def opened(local: LocalLakebase, folder: Path) -> Iterator[Shop]:
    """Yield the project, with a real database that has one row."""
    shop = Shop(local, folder)
    shop.sql(f"CREATE DATABASE {shop.name}")
    shop.sql(TABLE, dbname=shop.name)
    try:
        yield shop
    finally:
        shop.drop_test_databases()
        shop.sql(f"DROP DATABASE {shop.name} WITH (FORCE)")
