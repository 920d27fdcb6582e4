"""Liveness of open connections: expiry of the credential, state of the socket."""

import select
import weakref
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import psycopg

from django_lakebase.auth.credentials import utc_now

Connection: TypeAlias = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """When a connection was opened, and when its credential expires (UTC)."""

    opened_at: datetime
    expires_at: datetime


_lifetimes: "weakref.WeakKeyDictionary[Connection, Lifetime]" = (
    weakref.WeakKeyDictionary()
)


def record_lifetime(connection: Connection, expires_at: datetime) -> None:
    """Record that *connection* was just opened, and when its credential expires."""
    _lifetimes[connection] = Lifetime(opened_at=utc_now(), expires_at=expires_at)


def lifetime_of(connection: Connection) -> Lifetime | None:
    """Return the lifetime of *connection*; None for a native login."""
    return _lifetimes.get(connection)


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
