"""django-postgres-extra: its backend over ours."""

import pytest
from django.db import connection, connections
from psqlextra.query import ConflictAction

from django_lakebase.base import LakebaseMixin
from tools.packages.django_postgres_extra.readings.models import Meter

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_row_is_inserted_or_updated(outlive_token):
    """Past the end of the token that inserted it."""
    Meter.objects.upsert(["name"], {"name": "hall", "value": 1})
    outlive_token()

    Meter.objects.upsert(["name"], {"name": "hall", "value": 2})
    after_upsert = list(Meter.objects.values_list("name", "value"))
    got = Meter.objects.on_conflict(["name"], ConflictAction.UPDATE).insert_and_get(
        name="hall", value=3
    )

    assert isinstance(connections["default"], LakebaseMixin)
    assert after_upsert == [("hall", 2)]
    assert got.value == 3


def test_rows_are_inserted_in_bulk(outlive_token):
    """With one statement."""
    rows = [{"name": str(number), "value": number} for number in range(5)]
    Meter.objects.bulk_upsert(["name"], rows)
    outlive_token()

    Meter.objects.bulk_upsert(["name"], [{**row, "value": 9} for row in rows])

    assert set(Meter.objects.values_list("value", flat=True)) == {9}


def test_a_table_is_cloned_into_another_schema(outlive_token):
    """By the schema editor that it puts on ours."""
    outlive_token()
    with connection.schema_editor() as editor:
        editor.create_schema("archive")
        editor.clone_model_structure_to_schema(Meter, schema_name="archive")
    outlive_token()

    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('archive.readings_meter') IS NOT NULL")
        assert cursor.fetchone() == (True,)
    with connection.schema_editor() as editor:
        editor.delete_schema("archive", cascade=True)
