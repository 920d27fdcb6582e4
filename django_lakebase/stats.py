"""The figures of this process, for a dashboard or a health page of one's own."""

from dataclasses import dataclass, field
from datetime import datetime

from django.db import connections

from . import events
from .base import LakebaseMixin
from .workspace import access_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """
    What this process has done for one alias since it started, or was forked.

    Credentials are shared by the aliases that log in alike to one endpoint, so each
    of those tells the same of them. *credential_expires_at* is in UTC, and None
    before the first one and for a native login; *trouble* says why the last request
    for a credential failed, and is empty after one that succeeded. *pool* holds
    psycopg_pool's own figures, and is empty without a pool.
    """

    alias: str
    endpoint: str
    credentials_issued: int
    credential_expires_at: datetime | None
    trouble: str
    connections_opened: int
    connections_failed: int
    attempts_retried: int
    sessions_reopened: int
    pool: dict[str, int] = field(default_factory=dict)


def figures() -> dict[str, Figures]:
    """
    Return the figures of each alias with this engine; no I/O.

    Raises ImproperlyConfigured for an alias that no connection could be made of.
    """
    wrappers = ((alias, connections[alias]) for alias in connections)
    return {
        alias: _figures(alias, wrapper)
        for alias, wrapper in wrappers
        if isinstance(wrapper, LakebaseMixin)
    }


def _figures(alias: str, wrapper: LakebaseMixin) -> Figures:
    target, tally = wrapper.get_target(), events.tally(alias)
    credentials = None if target.is_native else access_to(target).credentials
    return Figures(
        alias=alias,
        endpoint=target.endpoint,
        credentials_issued=credentials.issued if credentials else 0,
        credential_expires_at=credentials.expires_at if credentials else None,
        trouble=credentials.trouble if credentials and credentials.error else "",
        connections_opened=tally.opened,
        connections_failed=tally.failed,
        attempts_retried=tally.retried,
        sessions_reopened=tally.reopened,
        pool=wrapper.pool_stats(),
    )
