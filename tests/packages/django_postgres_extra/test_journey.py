"""django-postgres-extra: its backend over ours."""

import pytest
from django.db import connection, connections
from psqlextra.query import ConflictAction

from django_lakebase.base import LakebaseMixin
from tests.packages.django_postgres_extra.readings.models import Meter, Reading

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


def test_a_table_gets_partitions(outlive_token):
    """By the schema editor that it puts on ours."""
    outlive_token()
    with connection.schema_editor() as editor:
        editor.add_list_partition(Reading, "y2026", [2026])

    Reading.objects.create(year=2026)
    outlive_token()

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM readings_reading_y2026")
        assert cursor.fetchone() == (1,)
    assert "y2026" in partitions_of(Reading)


def partitions_of(model):
    """Return the names of *model*'s partitions, by the backend's introspection."""
    with connection.cursor() as cursor:
        table = connection.introspection.get_partitioned_table(
            cursor, model._meta.db_table
        )
    return [partition.name for partition in table.partitions]
