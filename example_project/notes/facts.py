"""What there is to know about the connection that served a request."""

import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from django.db import connection
from django.utils import timezone

from django_lakebase.figures import figures

if TYPE_CHECKING:
    from django_lakebase.base import LakebaseMixin

# The server's own words, so that they hold for a native password too.
QUERY = """
SELECT current_user, version(), pid,
       extract(epoch FROM clock_timestamp() - backend_start)::float8
FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""


class Tally:
    """Counts requests; threads may count together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.last = 0

    def add(self) -> None:
        """Count one more."""
        with self._lock:
            self.last += 1


requests = Tally()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """
    The facts of one moment; spans are in seconds, moments in UTC.

    None where there is nothing to tell: a native password does not expire.
    """

    logged_in_as: str
    tls: str
    server: str
    session: int
    connection_age: float
    credential_expires_at: str | None
    credential_left: float | None
    credentials: int
    connections: int
    requests: int

    @property
    def life(self) -> float | None:
        """How long the credential was good for when the connection opened."""
        left = self.credential_left
        return None if left is None else round(left + self.connection_age, 1)

    def as_json(self) -> dict[str, Any]:
        """Return them for JSON."""
        return asdict(self) | {"life": self.life}


def gather() -> Facts:
    """Ask the database and the engine."""
    with connection.cursor() as cursor:
        cursor.execute(QUERY)
        user, server, session, age = cursor.fetchone()
    # A proxy: behind it is the wrapper of this thread.
    wrapper = cast("LakebaseMixin", connection)
    target, lease, known = wrapper.get_target(), wrapper.lease, figures()["default"]
    left = lease.expires_at - timezone.now() if lease else None
    return Facts(
        logged_in_as=user,
        tls=_tls(wrapper, target.sslmode),
        server=server.split(" on ")[0],
        session=session,
        connection_age=round(age, 1),
        # With its date, so that text sorts by time past midnight too.
        credential_expires_at=f"{lease.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        if lease
        else None,
        credential_left=round(left.total_seconds(), 1) if left else None,
        credentials=known.credentials_issued,
        connections=known.connections_opened,
        requests=requests.last,
    )


def _tls(wrapper: "LakebaseMixin", sslmode: str) -> str:
    mode = f"sslmode={sslmode or 'prefer'}"
    if not wrapper.connection.pgconn.ssl_in_use:
        return f"no ({mode})"
    verified = "verified" if sslmode == "verify-full" else "not verified"
    return f"yes, host {verified} ({mode})"
