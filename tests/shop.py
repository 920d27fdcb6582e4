"""The project in tests/projects/shop, whose tests are run as its user runs them."""

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
from tests.sessions import dialled

FOLDER = Path(__file__).parent / "projects" / "shop"
MANAGE = (sys.executable, "manage.py", "test", "--noinput")
# With the plugins that its user has, and not with all that are installed here.
PLUGINS = ("-p", "pytest_django.plugin", "-p", "xdist.plugin", "-p", "lakebase_local")
PYTEST = (sys.executable, "-m", "pytest", *PLUGINS, "-p", "no:cacheprovider")
# Patient, for several processes import the SDK at once, on whatever machine.
POOLED: dict[str, Any] = {
    "ENGINE": "django_lakebase",
    "OPTIONS": {"pool": True, "connect_budget": 120},
}
# A query while Django starts, so that a pool is open on the real database.
EARLY = {"SHOP_READS_EARLY": "yes"}
# What this process was told by its own test runner.
OURS = ("DJANGO_", "PYTEST_", "PG", "SHOP_")
KEPT = ("a real row",)
# As a migrated database has it, so that a test which strays finds its table.
TABLE = """
CREATE TABLE catalog_product (id bigserial PRIMARY KEY, name varchar(50) NOT NULL);
INSERT INTO catalog_product (name) VALUES ('a real row')
"""


@dataclass(frozen=True, slots=True)
class Run:
    """The end of a test run: what its user read, and what its tests noted."""

    status: int
    said: str
    notes: list[dict[str, Any]]

    def each(self, *keys: str) -> set[Any]:
        """Return what the notes say of *keys*, each once."""
        found = {tuple(note[key] for key in keys) for note in self.notes}
        return found if len(keys) > 1 else {value for (value,) in found}


class Shop:
    """The project, and its real database *name* on the local Lakebase."""

    def __init__(self, local: LocalLakebase, folder: Path) -> None:
        self.local = local
        self.name = f"shop_{uuid.uuid4().hex[:8]}"
        self._notes = folder / "notes"

    def run(
        self, *command: str, databases: dict[str, Any] | None = None, **variables: str
    ) -> Run:
        """Run *command* in the project's folder to its end."""
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
        """Return what *sql* gives, as the service principal or as it is told."""
        with dialled(self.local, **own) as session:
            found = session.execute(sql)
            return found.fetchall() if found.description else []

    def test_databases(self, **own: Any) -> dict[str, int]:
        """Return the test databases that there are, and their OIDs."""
        sql = "SELECT datname, oid FROM pg_database WHERE datname LIKE 'test%'"
        found: dict[str, int] = dict(self.sql(sql, **own))
        return {name: oid for name, oid in found.items() if self.name in name}

    def assert_nothing_is_left(self, **own: Any) -> None:
        """Check that there is no test database, and that the real one is as it was."""
        rows = self.sql("SELECT name FROM catalog_product", dbname=self.name, **own)
        assert rows == [KEPT]
        assert self.test_databases(**own) == {}

    def drop_test_databases(self, **own: Any) -> None:
        """Drop what was kept."""
        for name in self.test_databases(**own):
            self.sql(f'DROP DATABASE "{name}" WITH (FORCE)', **own)


@contextlib.contextmanager
def opened(local: LocalLakebase, folder: Path) -> Iterator[Shop]:
    """Give the project, with a real database that has a row."""
    shop = Shop(local, folder)
    shop.sql(f"CREATE DATABASE {shop.name}")
    shop.sql(TABLE, dbname=shop.name)
    try:
        yield shop
    finally:
        shop.drop_test_databases()
        shop.sql(f"DROP DATABASE {shop.name} WITH (FORCE)")
