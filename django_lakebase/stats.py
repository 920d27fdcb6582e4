"""Counters of this process for each alias, for a dashboard or a health page."""

from dataclasses import dataclass, field
from datetime import datetime

from django.db import connections

from . import events
from .auth.registry import credentials_of, endpoint_of
from .base import LakebaseMixin


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """
    What this process has done for one alias since it started or was forked.

    Aliases with the same login and endpoint share a credential, so they report the same
    values for it. *credential_expires_at* is in UTC; it is None for a native login and
    before the first credential. *last_error* says why the last refresh failed; it is ""
    after a success. *pool* holds psycopg_pool's stats; it is empty without a pool.
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
    Return the stats of each alias that uses this engine; does no I/O.

    Raises ImproperlyConfigured if the settings of an alias are invalid.
    """
    wrappers = ((alias, connections[alias]) for alias in connections)
    return {
        alias: _stats_of(alias, wrapper)
        for alias, wrapper in wrappers
        if isinstance(wrapper, LakebaseMixin)
    }


def _stats_of(alias: str, wrapper: LakebaseMixin) -> Stats:
    target = wrapper.get_target()
    credentials = credentials_of(target)
    return Stats(
        alias=alias,
        endpoint=endpoint_of(target),
        credentials_issued=credentials.issued if credentials else 0,
        credential_expires_at=credentials.expires_at if credentials else None,
        last_error=credentials.last_error if credentials else "",
        connections_opened=events.get_count(alias, "opened"),
        connections_failed=events.get_count(alias, "failed"),
        attempts_retried=events.get_count(alias, "retried"),
        sessions_reopened=events.get_count(alias, "reopened"),
        pool=wrapper.pool_stats(),
    )
