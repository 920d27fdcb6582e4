"""What happens to connections and credentials: counted, logged, signalled."""

import logging
import threading
from dataclasses import dataclass, replace
from datetime import datetime

from . import signals
from .forks import in_child
from .kinds import Then

logger = logging.getLogger("django_lakebase")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How often a process has opened connections of one alias."""

    opened: int = 0
    failed: int = 0
    retried: int = 0
    reopened: int = 0


_lock = threading.Lock()
_tallies: dict[str, Tally] = {}


def tally(alias: str) -> Tally:
    """Return what this process has counted for *alias*."""
    return _tallies.get(alias) or Tally()


def credential_issued(
    endpoint: str, *, issued_at: datetime, expires_at: datetime, seconds: float
) -> None:
    """Tell that the workspace issued a credential, after *seconds*."""
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
    """Tell that the workspace issued none, and why."""
    signals.credential_failed.send_robust(
        sender=None,
        endpoint=endpoint,
        failure_id=failure_id,
        reason=reason,
        seconds=seconds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """One opening of a connection, as far as it has come; *seconds* since its start."""

    alias: str
    endpoint: str
    host: str
    port: str
    database: str
    attempts: int
    seconds: float


def connection_opened(connect: Connect, *, expires_at: datetime | None) -> None:
    """Tell that a connection is open; *expires_at* is its credential's end, in UTC."""
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
    connect: Connect, *, failure_id: str, then: Then, pause: float
) -> None:
    """Tell that an attempt ended in *failure_id* and that another one follows."""
    _count(connect.alias, retried=1)
    logger.debug(
        "%s: attempt %d ended in %s, so connecting does this: %s, after %.2f s",
        connect.alias,
        connect.attempts,
        failure_id,
        then,
        pause,
        extra=_extra(connect, failure=failure_id),
    )
    signals.connection_retried.send_robust(
        sender=None, connect=connect, failure_id=failure_id, then=str(then), pause=pause
    )


def connection_failed(connect: Connect, *, failure_id: str) -> None:
    """Tell that no connection came about; the caller gets the error."""
    _count(connect.alias, failed=1)
    logger.debug(
        "%s: no connection after %.3f s: %s",
        connect.alias,
        connect.seconds,
        failure_id,
        extra=_extra(connect, failure=failure_id),
    )
    signals.connection_failed.send_robust(
        sender=None, connect=connect, failure_id=failure_id
    )


def session_reopened(alias: str, endpoint: str, *, seconds: float) -> None:
    """Tell that a session that was lost while idle was replaced, after *seconds*."""
    _count(alias, reopened=1)
    logger.info(
        "%s: the server had ended an idle session; opened a new one in %.3f s",
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
        so_far = tally(alias)
        _tallies[alias] = replace(
            so_far,
            opened=so_far.opened + opened,
            failed=so_far.failed + failed,
            retried=so_far.retried + retried,
            reopened=so_far.reopened + reopened,
        )


def _extra(connect: Connect, *, failure: str = "") -> dict[str, object]:
    return {
        "lakebase_alias": connect.alias,
        "lakebase_endpoint": connect.endpoint,
        "lakebase_attempts": connect.attempts,
        "lakebase_seconds": round(connect.seconds, 3),
        "lakebase_failure": failure,
    }


@in_child
def _count_anew_after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may hold it.
    _lock = threading.Lock()
    _tallies.clear()
