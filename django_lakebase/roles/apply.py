"""Planning and execution of changes in a database."""

from collections.abc import Callable

from psycopg import errors

from django_lakebase.connect.liveness import Connection

from .change import Change
from .facts import Request, fetch_facts
from .plan import plan

# How long a change of owner may wait for a transaction that uses the table, because
# other transactions queue behind it.
LOCK_TIMEOUT = "5s"
# Two sessions that plan at the same time would both create the same role.
_WAIT_FOR_OTHERS = """
SELECT pg_advisory_xact_lock(hashtextextended('django_lakebase roles', 0))
"""


def find_missing(connection: Connection, request: Request) -> list[Change]:
    """Return the changes that *request* needs at the moment."""
    return plan(request, fetch_facts(connection, request))


def apply_changes(
    connection: Connection, find_changes: Callable[[], list[Change]]
) -> list[Change]:
    """
    Execute what *find_changes* returns, without what the role may not do; return all.

    Everything is in one transaction, of one session at a time in a database. PostgreSQL
    refuses some changes with an error, and others with a warning; a new plan shows
    which. Raises psycopg's errors, after which nothing is changed.
    """
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        connection.execute(_WAIT_FOR_OTHERS)
        changes = find_changes()
        for change in changes:
            try:
                with connection.transaction():
                    for statement in change.statements:
                        connection.execute(statement.encode())
            # A role does not exist if the session could not create it.
            except (errors.InsufficientPrivilege, errors.UndefinedObject):
                continue
    return changes
