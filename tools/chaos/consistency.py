"""The consistency check: the writers' histories compared with the table."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import psycopg

from django_lakebase.local.client import LocalLakebase

from .history import Operation, Outcome

TABLE = "chaos_entry"
# Seconds.
SESSIONS_END_WITHIN = 30

# The number of rows with a key and a part.
RowCounts = Mapping[tuple[str, int], int]


def find_violations(operations: Iterable[Operation], rows: RowCounts) -> list[str]:
    """Return a text for each contradiction between *operations* and *rows*."""
    violations, keys = [], set()
    for operation in operations:
        keys.add(operation.key)
        counts = [rows.get((operation.key, p), 0) for p in range(operation.parts)]
        description = (
            f"{operation.kind} {operation.key} of {operation.alias}, "
            f"{operation.outcome}, rows {counts}"
        )
        if max(counts) > 1:
            violations.append(f"duplicate: {description}")
        elif len(set(counts)) > 1:
            violations.append(f"partial: {description}")
        elif operation.outcome == Outcome.ACKNOWLEDGED and not counts[0]:
            violations.append(f"lost: {description}")
        elif operation.outcome == Outcome.FAILED and counts[0]:
            violations.append(f"failed, but committed: {description}")
    violations += [f"unknown key: {key}" for key, _ in rows if key not in keys]
    return violations


def connect_as_owner(local: LocalLakebase) -> psycopg.Connection[Any]:
    """Connect as the project's owner with plain psycopg, without the engine."""
    facts = local.facts
    return psycopg.connect(
        host=facts["host"],
        hostaddr=facts["hostaddr"],
        port=facts["port"],
        dbname=facts["database"],
        user=facts["owner"],
        password=local.issue_token(facts["owner"]),
        sslmode="verify-full",
        sslrootcert=facts["ca_file"],
        autocommit=True,
        connect_timeout=10,
    )


def count_rows(local: LocalLakebase) -> tuple[RowCounts, int]:
    """Return the rows of each key and part, and the number of inserts executed."""
    with connect_as_owner(local) as connection:
        _await_end_of_sessions(connection, local.facts["service_principal"])
        rows = connection.execute(
            f"SELECT key, part, count(*) FROM {TABLE} GROUP BY key, part"  # noqa: S608
        ).fetchall()
        # A rollback does not reset a sequence, so it counts all inserts executed.
        [[last, is_called]] = connection.execute(
            f"SELECT last_value, is_called FROM {TABLE}_id_seq"  # noqa: S608
        ).fetchall()
    return Counter({(k, p): n for k, p, n in rows}), last if is_called else 0


def _await_end_of_sessions(connection: psycopg.Connection[Any], user: str) -> None:
    # Sessions whose client is gone may still be committing.
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    deadline = time.monotonic() + SESSIONS_END_WITHIN
    while True:
        [[count]] = connection.execute(query, [user]).fetchall()
        if not count:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{count} sessions of {user} are still open after "
                f"{SESSIONS_END_WITHIN} s"
            )
        time.sleep(0.1)
