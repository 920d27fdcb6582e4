"""The tests of the shop, which record the database of their rows."""

import json
import os
import time
from pathlib import Path

from django.db import connection, connections
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from .models import Product

LONGEST_WAIT = 60.0


def notes():
    """Return the notes of all processes so far."""
    text = Path(os.environ["SHOP_NOTES"]).read_text()
    return [json.loads(line) for line in text.splitlines()]


def note(alias, kind):
    """Record the database of *alias* and the rows in it."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT current_database(), pg_backend_pid()")
        database, backend = cursor.fetchone()
    found = {
        "kind": kind,
        "alias": alias,
        "database": database,
        "host": connections[alias].connection.info.host,
        "process": os.getpid(),
        "backend": backend,
        "tables": connections[alias].introspection.table_names(),
        "rows": sorted(Product.objects.using(alias).values_list("name", flat=True)),
    }
    with Path(os.environ["SHOP_NOTES"]).open("a") as file:
        file.write(json.dumps(found) + "\n")


class Places:
    """Writes to each database, and waits until the other workers have done so."""

    def test_rows_are_in_the_test_database(self):
        """Each alias writes one row, and stays connected until all workers have."""
        for alias in connections:
            Product.objects.using(alias).create(name=alias)
        for alias in connections:
            note(alias, type(self).__name__)
        deadline = time.monotonic() + LONGEST_WAIT
        workers = int(os.environ.get("SHOP_WORKERS", "1"))
        while len({found["process"] for found in notes()}) < workers:
            assert time.monotonic() < deadline, "the other worker is missing"
            time.sleep(0.02)


class InTransactionTests(Places, TestCase):
    """Tests whose rows are rolled back."""

    databases = "__all__"


class CommittedTests(Places, TransactionTestCase):
    """Tests whose rows are committed, and flushed afterwards."""

    databases = "__all__"

    def test_rows_are_found_after_a_new_login(self):
        """The credential of the first test may have expired."""
        Product.objects.create(name="lamp")
        time.sleep(float(os.environ.get("SHOP_OUTLIVES", "0")))
        connection.close()
        assert Product.objects.count() == 1


class WithoutDatabaseTests(SimpleTestCase):
    """Tests that need no database."""

    def test_a_product_has_a_name(self):
        """The model is used in memory only."""
        assert Product(name="lamp").name == "lamp"
