"""
Events of connections and credentials, sent as signals.

The events of connections are also counted and logged here. The credential cache counts
and logs its events itself.

`_lock` is held only while a counter is updated. Readers need no lock, because the
counters of an alias are replaced as a whole.
"""

import logging
import threading
from dataclasses import dataclass, replace
from datetime import datetime

from . import signals
from .failures.failure import Action
from .fork import run_in_child

logger = logging.getLogger("django_lakebase")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionCounts:
    """Counters of one alias in this process, since it started or was forked."""

    opened: int = 0
    failed: int = 0
    retried: int = 0
    reopened: int = 0


_lock = threading.Lock()
_counts: dict[str, ConnectionCounts] = {}


def connection_counts(alias: str) -> ConnectionCounts:
    """Return the counters of *alias*."""
    return _counts.get(alias, ConnectionCounts())


def credential_issued(
    endpoint: str, *, issued_at: datetime, expires_at: datetime, seconds: float
) -> None:
    """Report that the workspace issued a credential, which took *seconds*."""
    signals.credential_issued.send_robust(
        sender=None,
        endpoint=endpoint,
        issued_at=issued_at,
        expires_at=expires_at,
        seconds=seconds,
    )


def credential_failed(
    endpoint: str, *, failure_id: str, reason: str, seconds: float
) -> None:
    """Report that a request for a credential failed; *reason* contains no secret."""
    signals.credential_failed.send_robust(
        sender=None,
        endpoint=endpoint,
        failure_id=failure_id,
        reason=reason,
        seconds=seconds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectEvent:
    """The progress of opening one connection; *seconds* is the time since its start."""

    alias: str
    endpoint: str
    host: str
    port: str
    database: str
    attempts: int
    seconds: float


def connection_opened(connect: ConnectEvent, *, expires_at: datetime | None) -> None:
    """Report an open connection; *expires_at* (UTC) is the end of its credential."""
    _count(connect.alias, opened=1)
    logger.debug(
        "%s: opened a connection in %.3f s, attempt %d",
        connect.alias,
        connect.seconds,
        connect.attempts,
        extra=_extra(connect),
    )
    signals.connection_opened.send_robust(
        sender=None, connect=connect, expires_at=expires_at
    )


def connection_retried(
    connect: ConnectEvent, *, failure_id: str, action: Action, pause: float
) -> None:
    """Report a failed attempt; the next attempt follows after *pause* seconds."""
    _count(connect.alias, retried=1)
    logger.debug(
        "%s: attempt %d failed (%s); next action: %s, after %.2f s",
        connect.alias,
        connect.attempts,
        failure_id,
        action,
        pause,
        extra=_extra(connect, failure=failure_id),
    )
    signals.connection_retried.send_robust(
        sender=None,
        connect=connect,
        failure_id=failure_id,
        action=str(action),
        pause=pause,
    )


def connection_failed(connect: ConnectEvent, *, failure_id: str) -> None:
    """Report that opening the connection failed; the caller gets the error."""
    _count(connect.alias, failed=1)
    logger.debug(
        "%s: connecting failed after %.3f s: %s",
        connect.alias,
        connect.seconds,
        failure_id,
        extra=_extra(connect, failure=failure_id),
    )
    signals.connection_failed.send_robust(
        sender=None, connect=connect, failure_id=failure_id
    )


def session_reopened(alias: str, endpoint: str, *, seconds: float) -> None:
    """Report that a session lost while idle was replaced within *seconds*."""
    _count(alias, reopened=1)
    logger.info(
        "%s: the server ended an idle session; opened a new one in %.3f s",
        alias,
        seconds,
        extra={
            "lakebase_alias": alias,
            "lakebase_endpoint": endpoint,
            "lakebase_seconds": round(seconds, 3),
        },
    )
    signals.session_reopened.send_robust(
        sender=None, alias=alias, endpoint=endpoint, seconds=seconds
    )


def _count(
    alias: str,
    *,
    opened: int = 0,
    failed: int = 0,
    retried: int = 0,
    reopened: int = 0,
) -> None:
    with _lock:
        counts = connection_counts(alias)
        _counts[alias] = replace(
            counts,
            opened=counts.opened + opened,
            failed=counts.failed + failed,
            retried=counts.retried + retried,
            reopened=counts.reopened + reopened,
        )


def _extra(connect: ConnectEvent, *, failure: str = "") -> dict[str, object]:
    return {
        "lakebase_alias": connect.alias,
        "lakebase_endpoint": connect.endpoint,
        "lakebase_attempts": connect.attempts,
        "lakebase_seconds": round(connect.seconds, 3),
        "lakebase_failure": failure,
    }


@run_in_child
def _reset_counts_after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may have held it.
    _lock = threading.Lock()
    _counts.clear()
