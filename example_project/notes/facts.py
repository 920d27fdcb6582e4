"""What there is to know about the connection that served a request."""

import itertools
import threading
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from django.db import connection
from django.utils import timezone

from django_lakebase.workspace import access_to

if TYPE_CHECKING:
    from django_lakebase.base import LakebaseMixin


class Tally:
    """Counts requests; threads may count together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self.last = 0

    def add(self) -> None:
        """Count one more."""
        with self._lock:
            self.last = next(self._numbers)


requests = Tally()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts of one moment; spans are in seconds, moments in UTC."""

    logged_in_as: str
    tls: str
    server: str
    session: int
    connection_age: float | None
    credential_expires_at: str
    credential_left: float | None
    credentials: int
    connections: int
    requests: int

    def as_json(self) -> dict[str, Any]:
        """Return them for JSON."""
        return asdict(self)


def gather() -> Facts:
    """Ask the database and the engine."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, version(), pg_backend_pid()")
        user, server, session = cursor.fetchone()
    # A proxy: behind it is the wrapper of this thread.
    wrapper = cast("LakebaseMixin", connection)
    target, lease, pool = wrapper.get_target(), wrapper.lease, wrapper.pool
    now = timezone.now()
    return Facts(
        logged_in_as=user,
        tls=f"yes, sslmode={target.sslmode}",
        server=server.split(" on ")[0],
        session=session,
        connection_age=_seconds(now - lease.opened_at) if lease else None,
        credential_expires_at=f"{lease.expires_at:%H:%M:%S} UTC" if lease else "",
        credential_left=_seconds(lease.expires_at - now) if lease else None,
        credentials=0 if target.is_native else access_to(target).credentials.issued,
        connections=pool.get_stats()["connections_num"] if pool else 0,
        requests=requests.last,
    )


def _seconds(span: timedelta) -> float:
    return round(span.total_seconds(), 1)
