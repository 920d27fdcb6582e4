"""
Age and liveness of open connections: when to replace one, and whether it still works.

A connection is replaced before its credential expires, although the server checks
expiry only at login. Therefore a connection that is due stays in use while no new
credential is available.
"""

import logging
import random
import select
import time
import weakref
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg.pq import PipelineStatus

from django_lakebase.auth.credentials import utc_now
from django_lakebase.auth.registry import credentials_of, endpoint_of
from django_lakebase.config.target import Target

logger = logging.getLogger("django_lakebase")

Connection: TypeAlias = psycopg.Connection[Any]

# The age cap: connections are replaced at a random point between these shares of the
# remaining lifetime of their credential, so that processes do not reconnect in the same
# second.
MIN_AGE_SHARE, MAX_AGE_SHARE = 0.6, 0.9


class Lifetime(NamedTuple):
    """When a connection was opened, and when its credential expires (UTC)."""

    opened_at: datetime
    expires_at: datetime

    @property
    def duration(self) -> timedelta:
        """The lifetime that the credential had left when the connection was opened."""
        return self.expires_at - self.opened_at


_lifetimes: "weakref.WeakKeyDictionary[Connection, Lifetime]" = (
    weakref.WeakKeyDictionary()
)
# Connections for which a warning was logged that they are kept.
_kept: "weakref.WeakSet[Connection]" = weakref.WeakSet()


def record_lifetime(connection: Connection, expires_at: datetime) -> None:
    """Record that *connection* was just opened, and when its credential expires."""
    _lifetimes[connection] = Lifetime(opened_at=utc_now(), expires_at=expires_at)


def lifetime_of(connection: Connection) -> Lifetime | None:
    """Return the lifetime of *connection*; None for a login with a password."""
    return _lifetimes.get(connection)


def cap_age(connection: Connection, close_at: float | None) -> float | None:
    """
    Return *close_at*, or the age cap of *connection* if that is earlier.

    Both are times of time.monotonic(); None means never.
    """
    lifetime = lifetime_of(connection)
    if lifetime is None:
        return close_at
    left = (lifetime.expires_at - utc_now()).total_seconds()
    cap = time.monotonic() + left * random.uniform(MIN_AGE_SHARE, MAX_AGE_SHARE)  # noqa: S311 - no secret.
    return cap if close_at is None else min(close_at, cap)


def must_be_kept(connection: Connection | None, target: Target) -> bool:
    """
    Return whether no new credential is available, so *connection* must stay open.

    In that case also starts a refresh, and logs one warning per connection.
    """
    credentials = credentials_of(target)
    if connection is None or connection not in _lifetimes or credentials is None:
        return False
    if credentials.get_cached() is not None:
        return False
    credentials.refresh_soon()
    # After an idle hour the refresh has only just started: there is no error yet.
    if credentials.last_exception is not None and connection not in _kept:
        _kept.add(connection)
        logger.warning(
            "%s: no new credential is available (%s), so a connection is kept "
            "beyond the age limit of its credential",
            target.label,
            credentials.last_error,
            extra={
                "lakebase_alias": target.alias,
                "lakebase_endpoint": endpoint_of(target),
            },
        )
    return True


def is_readable(connection: Connection) -> bool:
    """
    Return whether the server has sent data that has not been read; does not wait.

    On an idle connection the data is usually the message that ends the session, because
    the endpoint was suspended or restarted, or the session was terminated. A closed
    connection counts as readable.
    """
    if connection.closed:
        return True
    descriptor = connection.fileno()
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def has_ended(connection: Connection) -> bool:
    """
    Return whether the session of *connection* has ended.

    Makes a round trip, but only if the server has sent data, because that may be a
    notification. psycopg 3.2.4 and later keep that notification; older versions lose
    it, as in any query.
    """
    if is_readable(connection) and not connection.closed:
        if connection.pgconn.pipeline_status != PipelineStatus.OFF:
            return False
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg.Error:
            return True
    return connection.closed
