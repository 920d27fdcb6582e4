"""
The advisory lock with which one process at a time migrates a database.

How it works. The session that migrates also holds the lock, so the lock ends with the
session, however the process ends. The other processes poll for the lock: a session that
waits in a blocking pg_advisory_lock() has a snapshot, for which CREATE INDEX
CONCURRENTLY in the holder would wait. Between two polls, a session is idle and in no
transaction.

Invariants. The settings of a session that has been prepared, and the lock, never reach
another user of a pool: `MigrationLock.release` ends the session. A session that is
lost after `MigrationLock.acquire` is never replaced by one without the lock.
"""

import hashlib
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError

# Seconds between two polls, on average.
POLL_INTERVAL = 1.0
# They would end a long migration, or its session while it is idle. Some of them do not
# exist in every version of PostgreSQL.
TIMEOUTS = [
    "statement_timeout",
    "transaction_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
]

# The key is computed from the search_path. current_schema() changes when the first
# migration creates the schema: processes before and after that would have different
# keys.
_PREPARE = """
SELECT current_setting('search_path'), set_config('lock_timeout', coalesce(
    %s, current_setting('lock_timeout')), false), (SELECT count(set_config(
    name, '0', false)) FROM pg_settings WHERE name = ANY(%s))
"""
# How soon the server notices, during a statement, that its client was killed. Servers
# on some operating systems reject it.
_CHECK_CLIENT = "SET client_connection_check_interval = '2s'"
_POLL = "SELECT pg_try_advisory_lock(%s::bigint)"
# Values that the role may not see are NULL, and are left out.
_SESSION = """
concat_ws(', ', 'session ' || l.pid, 'application "' || a.application_name || '"',
    'client ' || host(a.client_addr), 'connected since ' || to_char(
        a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'))
"""
_HOLDER = f"""
SELECT {_SESSION} FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (l.classid::bigint << 32 | l.objid::bigint) = %s
"""  # noqa: S608 - only constants.
# Relations whose name occurs in a statement.
_USERS = rf"""
SELECT {_SESSION} || ', uses ' || string_agg(DISTINCT c.relname, ', ')
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
    LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.granted AND l.pid <> pg_backend_pid() AND c.relkind IN ('r', 'p')
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND pg_table_is_visible(c.oid)
    AND %s ~ ('\m' || regexp_replace(c.relname, '(\W)', '\\\1', 'g') || '\M')
GROUP BY l.pid, a.application_name, a.client_addr, a.backend_start
"""  # noqa: S608 - only constants.


class MigrationLock:
    """
    The lock, for *connection*, Django's wrapper.

    *lock_timeout* is PostgreSQL's setting for the session, in seconds; 0 leaves it
    unchanged.
    """

    def __init__(self, connection: Any, lock_timeout: float) -> None:
        self._connection = connection
        self._lock_timeout = lock_timeout
        self._key = 0
        self._session: object = None

    def acquire(
        self, connect: Callable[[], object], report: Callable[[str], object]
    ) -> None:
        """
        Wait for the lock as long as another session holds it.

        *connect* opens the connection unless it is open. *report* gets a description of
        the holder, once.
        """
        polls, is_reported = 0, False
        while True:
            try:
                if not polls:
                    connect()
                    self._prepare()
                if self._fetch(_POLL, [self._key]) == [True]:
                    self._session = self._connection.connection
                    return
                polls += 1
                if not is_reported:
                    report("; ".join(self._fetch(_HOLDER, [self._key])))
                    is_reported = True
            except (OperationalError, InterfaceError):
                # The session of a process that waits may be replaced, for example
                # because the server was restarted.
                if not polls or not self._is_closed():
                    raise
                self._connection.close()
                polls = 0
            time.sleep(POLL_INTERVAL * random.uniform(0.75, 1.25))  # noqa: S311 - no secret.

    def is_lost(self) -> bool:
        """Return whether the session that held the lock has ended."""
        return self._connection.connection is not self._session or self._is_closed()

    def release(self) -> None:
        """End the session, with its lock and settings, whatever state it is in."""
        if self._connection.connection is not None:
            # Before the pool, if there is one, gets it.
            self._connection.connection.close()
        self._connection.close()

    def users_of(self, statement: str) -> list[str]:
        """Return descriptions of other sessions with locks on tables in *statement*."""
        return self._fetch(_USERS, [statement])

    def _prepare(self) -> None:
        # Or close_old_connections() in a migration would end the session.
        self._connection.close_at = None
        with suppress(DatabaseError), self._connection.cursor() as cursor:
            cursor.execute(_CHECK_CLIENT)
        milliseconds = max(1, round(self._lock_timeout * 1000))
        limit = f"{milliseconds}ms" if self._lock_timeout else None
        [search_path] = self._fetch(_PREPARE, [limit, TIMEOUTS])
        text = f"django_lakebase migrations in {search_path}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        self._key = int.from_bytes(digest, signed=True)

    def _is_closed(self) -> bool:
        session = self._connection.connection
        return session is None or bool(session.closed)

    def _fetch(self, sql: str, params: list[Any]) -> list[Any]:
        """Return the first column of the result."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql, params)
            return [row[0] for row in cursor.fetchall()]
