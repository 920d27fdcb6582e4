"""Queries over a connection of Django, and their results."""

import select
from typing import Any

from django_lakebase.base import DatabaseWrapper


def fetch_value(wrapper: DatabaseWrapper, sql: str) -> Any:
    """Run *sql* and return the first column of its first row."""
    with wrapper.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def wait_for_data(connection: Any) -> None:
    """Wait until the server has sent something to the idle *connection*."""
    assert select.select([connection.fileno()], [], [], 60)[0]
