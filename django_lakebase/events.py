"""
The events of connections and credentials: each is counted, logged and sent as a signal.

This is the only module that reports them. *source* is the object to which an event
happened; the signal carries its class as the sender.
"""

import logging
from collections import Counter
from collections.abc import Hashable
from datetime import datetime
from typing import NamedTuple

from . import process, signals
from .failures.classify import classify, scrub
from .failures.failure import Action, Source

logger = logging.getLogger("django_lakebase")

# By what was counted (an alias, a credential cache) and the name of the event.
_counts: Counter[tuple[Hashable, str]] = Counter()
process.run_in_child(_counts.clear)


def get_count(subject: Hashable, event: str) -> int:
    """Return how often *event* happened in this process, such as ``"opened"``."""
    return _counts[subject, event]


def credential_issued(
    source: Hashable,
    endpoint: str,
    *,
    issued_at: datetime,
    expires_at: datetime,
    seconds: float,
) -> None:
    """Report that *source* received a credential, *seconds* after it asked for one."""
    _count(source, "issued")
    signals.credential_issued.send_robust(
        type(source),
        endpoint=endpoint,
        issued_at=issued_at,
        expires_at=expires_at,
        seconds=seconds,
    )


def credential_cached(endpoint: str, *, left: float) -> None:
    """Report that a new credential, valid for *left* seconds, is in use."""
    logger.info(
        "new credential for %s, valid for %d s",
        endpoint,
        left,
        extra={"lakebase_endpoint": endpoint, "lakebase_left": round(left)},
    )


def credential_failed(
    source: object, endpoint: str, error: BaseException, *, seconds: float
) -> None:
    """Report that a request for a credential failed with *error*."""
    signals.credential_failed.send_robust(
        type(source),
        endpoint=endpoint,
        failure_id=classify(error, Source.WORKSPACE).id,
        reason=scrub(str(error)),
        seconds=seconds,
    )


def refresh_failed(endpoint: str, error: BaseException, *, left: float) -> None:
    """Report that a credential that is valid for *left* seconds stays in use."""
    logger.warning(
        "could not refresh the credential for %s: %s; the current one is valid for "
        "%d s",
        endpoint,
        scrub(str(error)),
        left,
        extra={"lakebase_endpoint": endpoint, "lakebase_left": round(left)},
    )


def clock_is_off(endpoint: str, skew: str) -> None:
    """Report that the newest credential for *endpoint* reveals a clock *skew*."""
    logger.warning(
        "clock skew with the credential for %s: %s",
        endpoint,
        skew,
        extra={"lakebase_endpoint": endpoint},
    )


def host_is_other(alias: str, endpoint: str, text: str) -> None:
    """Report with *text* that the host of *alias* is not a host of *endpoint*."""
    logger.warning(
        "%s: %s",
        alias,
        text,
        extra={"lakebase_alias": alias, "lakebase_endpoint": endpoint},
    )


class ConnectEvent(NamedTuple):
    """The progress of opening one connection; *seconds* is the time since its start."""

    alias: str
    endpoint: str
    host: str
    port: str
    database: str
    attempts: int
    seconds: float


def connection_opened(
    source: object, connect: ConnectEvent, *, expires_at: datetime | None
) -> None:
    """Report an open connection; *expires_at* (UTC) is the end of its credential."""
    _count(connect.alias, "opened")
    message = "%s: opened a connection in %.3f s, attempt %d"
    _log(connect, message, connect.seconds, connect.attempts)
    signals.connection_opened.send_robust(
        type(source), connect=connect, expires_at=expires_at
    )


def connection_retried(
    source: object,
    connect: ConnectEvent,
    *,
    failure_id: str,
    action: Action,
    pause: float,
) -> None:
    """Report a failed attempt; the next attempt follows after *pause* seconds."""
    _count(connect.alias, "retried")
    message = "%s: attempt %d failed (%s); next action: %s, after %.2f s"
    values = connect.attempts, failure_id, action, pause
    _log(connect, message, *values, failure_id=failure_id)
    signals.connection_retried.send_robust(
        type(source),
        connect=connect,
        failure_id=failure_id,
        action=str(action),
        pause=pause,
    )


def connection_failed(
    source: object, connect: ConnectEvent, *, failure_id: str
) -> None:
    """Report that opening the connection failed; the caller gets the error."""
    _count(connect.alias, "failed")
    message = "%s: connecting failed after %.3f s: %s"
    _log(connect, message, connect.seconds, failure_id, failure_id=failure_id)
    signals.connection_failed.send_robust(
        type(source), connect=connect, failure_id=failure_id
    )


def direct_tls_probed(host: str, *, is_supported: bool) -> None:
    """Report whether *host* supports direct TLS."""
    offer = "supports" if is_supported else "does not support"
    logger.debug("%s %s direct TLS", host, offer)


def tls_shortcut_rejected(host: str, shortcut: str, error: object) -> None:
    """Report that connections to *host* no longer use *shortcut*, after *error*."""
    logger.info("%s: stopped using %s: %s", host, shortcut, scrub(str(error)))


def session_reopened(
    source: object, alias: str, endpoint: str, *, seconds: float
) -> None:
    """Report that a session lost while idle was replaced within *seconds*."""
    _count(alias, "reopened")
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
        type(source), alias=alias, endpoint=endpoint, seconds=seconds
    )


def _count(subject: Hashable, event: str) -> None:
    with process.lock:
        _counts[subject, event] += 1


def _log(
    connect: ConnectEvent, message: str, *values: object, failure_id: str = ""
) -> None:
    extra = {
        "lakebase_alias": connect.alias,
        "lakebase_endpoint": connect.endpoint,
        "lakebase_attempts": connect.attempts,
        "lakebase_seconds": round(connect.seconds, 3),
        "lakebase_failure": failure_id,
    }
    logger.debug(message, connect.alias, *values, extra=extra)
