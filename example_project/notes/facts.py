"""Facts about the connection that served a request, and about this process."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from django.db import connection
from django.utils import timezone

from django_lakebase.stats import get_stats

from .recorder import Kind, recorder

if TYPE_CHECKING:
    from django_lakebase.base import LakebaseMixin

# Asks the server, so that the answer is also right for a native password.
QUERY = """
SELECT current_user, version(), pid,
       extract(epoch FROM clock_timestamp() - backend_start)::float8
FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """
    Facts at the time of a request; durations are in seconds, times in UTC.

    The values of the credential are None for a native password, which never expires.
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
    def lifetime(self) -> float | None:
        """How long the credential was still valid when the connection was opened."""
        left = self.credential_left
        return None if left is None else round(left + self.connection_age, 1)

    def as_json(self) -> dict[str, Any]:
        """Return the facts for JSON."""
        return asdict(self) | {"lifetime": self.lifetime}


def collect_facts() -> Facts:
    """Return facts from the database and the engine."""
    with connection.cursor() as cursor:
        cursor.execute(QUERY)
        user, server, session, age = cursor.fetchone()
    # A proxy for the wrapper of this thread.
    wrapper = cast("LakebaseMixin", connection)
    target, lifetime = wrapper.get_target(), wrapper.lifetime
    stats = get_stats()["default"]
    left = lifetime.expires_at - timezone.now() if lifetime else None
    return Facts(
        logged_in_as=user,
        tls=_tls(wrapper, target.sslmode),
        server=server.split(" on ")[0],
        session=session,
        connection_age=round(age, 1),
        # With the date, so that the text sorts by time even across midnight.
        credential_expires_at=f"{lifetime.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        if lifetime
        else None,
        credential_left=round(left.total_seconds(), 1) if left else None,
        credentials=stats.credentials_issued,
        connections=stats.connections_opened,
        requests=recorder.get_count(Kind.REQUEST),
    )


def _tls(wrapper: "LakebaseMixin", sslmode: str) -> str:
    mode = f"sslmode={sslmode or 'prefer'}"
    if not wrapper.connection.pgconn.ssl_in_use:
        return f"no ({mode})"
    verified = "verified" if sslmode == "verify-full" else "not verified"
    return f"yes, host {verified} ({mode})"
