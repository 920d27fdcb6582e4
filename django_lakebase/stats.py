"""Counters of this process, for a dashboard or a health page."""

from dataclasses import dataclass, field
from datetime import datetime

from django.db import connections

from . import events
from .auth.registry import access_to
from .base import LakebaseMixin


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """
    What this process has done for one alias since it started or was forked.

    Aliases that log in alike to one endpoint share a credential, so they report the
    same credential values. *credential_expires_at* is in UTC; it is None before the
    first credential and for a native login. *last_error* is the reason why the last
    request for a credential failed, or "" if it succeeded. *pool* holds psycopg_pool's
    stats, and is empty without a pool.
    """

    alias: str
    endpoint: str
    credentials_issued: int
    credential_expires_at: datetime | None
    last_error: str
    connections_opened: int
    connections_failed: int
    attempts_retried: int
    sessions_reopened: int
    pool: dict[str, int] = field(default_factory=dict)


def get_stats() -> dict[str, Stats]:
    """
    Return the stats of each alias with this engine; no I/O.

    Raises ImproperlyConfigured if the settings of an alias are invalid.
    """
    wrappers = ((alias, connections[alias]) for alias in connections)
    return {
        alias: _stats_of(alias, wrapper)
        for alias, wrapper in wrappers
        if isinstance(wrapper, LakebaseMixin)
    }


def _stats_of(alias: str, wrapper: LakebaseMixin) -> Stats:
    target, counts = wrapper.get_target(), events.connection_counts(alias)
    credentials = None if target.is_native else access_to(target).credentials
    return Stats(
        alias=alias,
        endpoint=target.endpoint,
        credentials_issued=credentials.issued if credentials else 0,
        credential_expires_at=credentials.expires_at if credentials else None,
        last_error=credentials.last_error if credentials else "",
        connections_opened=counts.opened,
        connections_failed=counts.failed,
        attempts_retried=counts.retried,
        sessions_reopened=counts.reopened,
        pool=wrapper.pool_stats(),
    )
