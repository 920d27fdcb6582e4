"""django-postgres-extra: its backend on top of the engine."""

import pytest
from django.db import connection, connections
from psqlextra.query import ConflictAction

from django_lakebase.base import LakebaseMixin
from tools.packages.django_postgres_extra.readings.models import Meter

pytestmark = pytest.mark.django_db(transaction=True)


def test_upsert_works_after_token_expiry(expire_tokens):
    Meter.objects.upsert(["name"], {"name": "hall", "value": 1})
    expire_tokens()

    Meter.objects.upsert(["name"], {"name": "hall", "value": 2})
    after_upsert = list(Meter.objects.values_list("name", "value"))
    inserted = Meter.objects.on_conflict(
        ["name"], ConflictAction.UPDATE
    ).insert_and_get(name="hall", value=3)

    assert isinstance(connections["default"], LakebaseMixin)
    assert after_upsert == [("hall", 2)]
    assert inserted.value == 3


def test_bulk_upsert_works_after_token_expiry(expire_tokens):
    rows = [{"name": str(number), "value": number} for number in range(5)]
    Meter.objects.bulk_upsert(["name"], rows)
    expire_tokens()

    Meter.objects.bulk_upsert(["name"], [{**row, "value": 9} for row in rows])

    assert set(Meter.objects.values_list("value", flat=True)) == {9}


def test_schema_editor_clones_a_table_after_token_expiry(expire_tokens):
    """The package extends the schema editor of the engine."""
    expire_tokens()
    with connection.schema_editor() as editor:
        editor.create_schema("archive")
        editor.clone_model_structure_to_schema(Meter, schema_name="archive")
    expire_tokens()

    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('archive.readings_meter') IS NOT NULL")
        assert cursor.fetchone() == (True,)
    with connection.schema_editor() as editor:
        editor.delete_schema("archive", cascade=True)
