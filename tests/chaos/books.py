"""The books: what the writers were told beside what is in the table."""

import time
from collections import Counter

from tests.helpers.sessions import open_session

from .journal import Outcome

TABLE = "chaos_entry"


def balance(units, rows):
    """
    Return what does not agree, in words.

    *rows* counts the rows of each key and part.
    """
    wrong, known = [], set()
    for unit in units:
        known.add(unit.key)
        found = [rows.get((unit.key, part), 0) for part in range(unit.parts)]
        what = f"{unit.kind} {unit.key} of {unit.alias}, {unit.outcome}, rows {found}"
        if max(found) > 1:
            wrong.append(f"doubled: {what}")
        elif len(set(found)) > 1:
            wrong.append(f"torn: {what}")
        elif unit.outcome == Outcome.ACKNOWLEDGED and not found[0]:
            wrong.append(f"lost: {what}")
        elif unit.outcome == Outcome.REFUSED and found[0]:
            wrong.append(f"refused, and there: {what}")
    wrong += [f"from nowhere: {key}" for key, _ in rows if key not in known]
    return wrong


def dial(local):
    """Return a connection of the owner's: no fault is on, and no engine takes part."""
    return open_session(local, user=local.facts["owner"])


def count(local):
    """Return the rows of each key and part, and how often an insert was run."""
    with dial(local) as session:
        _see_all_end(session, local.facts["service_principal"])
        rows = session.execute(
            f"SELECT key, part, count(*) FROM {TABLE} GROUP BY key, part"  # noqa: S608
        ).fetchall()
        # A sequence forgets no number when a transaction is rolled back.
        [[last, is_called]] = session.execute(
            f"SELECT last_value, is_called FROM {TABLE}_id_seq"  # noqa: S608
        ).fetchall()
    return Counter({(k, p): n for k, p, n in rows}), last if is_called else 0


def _see_all_end(session, user):
    # What a client has left behind may still be committing.
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    deadline = time.monotonic() + 30
    while session.execute(query, [user]).fetchone()[0]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"sessions of {user} stay open")
        time.sleep(0.1)
