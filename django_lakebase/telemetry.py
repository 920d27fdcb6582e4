"""
OpenTelemetry metrics and spans, recorded from the signals (the extra ``otel``).

The app loads this module only if OpenTelemetry's API is installed. Names follow the
semantic conventions for database clients
(https://opentelemetry.io/docs/specs/semconv/db/). Names that start with ``lakebase.``
follow the vendor's connector for Node where it has an equivalent.
docs/reference/observability.md lists them all.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, StatusCode

from . import __version__, signals
from .events import ConnectEvent
from .exceptions import SettingsError
from .stats import Stats, get_stats

NANOSECONDS = 1_000_000_000


class Telemetry:
    """The receivers of the signals, which record metrics and spans."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("django_lakebase", __version__)
        meter = metrics.get_meter("django_lakebase", __version__)
        self._refresh = meter.create_histogram(
            "lakebase.token.refresh.duration",
            unit="ms",
            description="Duration of requests for a credential.",
        )
        self._create_time = meter.create_histogram(
            "db.client.connection.create_time",
            unit="s",
            description="The time it took to create a new connection.",
        )
        self._retries = meter.create_counter(
            "lakebase.connection.retries",
            unit="{attempt}",
            description="Failed attempts to connect that were retried.",
        )
        self._reopened = meter.create_counter(
            "lakebase.session.reopened",
            unit="{session}",
            description="Sessions that were lost while idle, and replaced.",
        )
        for name, (unit, description, read) in POOL_METRICS.items():
            meter.create_observable_gauge(
                name,
                callbacks=[_gauge_callback(read)],
                unit=unit,
                description=description,
            )

    def listen(self) -> None:
        """Connect the receivers to the signals."""
        signals.credential_issued.connect(self.credential_issued)
        signals.credential_failed.connect(self.credential_failed)
        signals.connection_opened.connect(self.connection_opened)
        signals.connection_retried.connect(self.connection_retried)
        signals.connection_failed.connect(self.connection_failed)
        signals.session_reopened.connect(self.session_reopened)

    def credential_issued(
        self, *, endpoint: str, expires_at: datetime, seconds: float, **kwargs: Any
    ) -> None:
        """Record a successful request for a credential."""
        self._refresh.record(seconds * 1000, {"lakebase.endpoint": endpoint})
        attributes = {
            "lakebase.endpoint": endpoint,
            "lakebase.token.expires_at": expires_at.isoformat(),
        }
        self._span("lakebase.token.refresh", seconds, attributes)

    def credential_failed(
        self, *, endpoint: str, failure_id: str, seconds: float, **kwargs: Any
    ) -> None:
        """Record a failed request for a credential."""
        attributes = {"lakebase.endpoint": endpoint, "error.type": failure_id}
        self._refresh.record(seconds * 1000, attributes)
        self._span("lakebase.token.refresh", seconds, attributes)

    def connection_opened(self, *, connect: ConnectEvent, **kwargs: Any) -> None:
        """Record an opened connection."""
        name = {"db.client.connection.pool.name": _pool_name(connect.alias)}
        self._create_time.record(connect.seconds, name)
        self._span("lakebase.connect", connect.seconds, _attributes(connect))

    def connection_retried(
        self, *, connect: ConnectEvent, failure_id: str, **kwargs: Any
    ) -> None:
        """Count a failed attempt that is retried."""
        name = {"db.client.connection.pool.name": _pool_name(connect.alias)}
        self._retries.add(1, {**name, "error.type": failure_id})

    def connection_failed(
        self, *, connect: ConnectEvent, failure_id: str, **kwargs: Any
    ) -> None:
        """Record a connection that could not be opened."""
        attributes = {**_attributes(connect), "error.type": failure_id}
        self._span("lakebase.connect", connect.seconds, attributes)

    def session_reopened(self, *, alias: str, **kwargs: Any) -> None:
        """Count a session that was lost while idle, and replaced."""
        name = {"db.client.connection.pool.name": _pool_name(alias)}
        self._reopened.add(1, name)

    def _span(self, name: str, seconds: float, attributes: dict[str, Any]) -> None:
        """Record a span that started *seconds* ago and ends now."""
        span = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT,
            start_time=time.time_ns() - int(seconds * NANOSECONDS),
            attributes=attributes,
        )
        if "error.type" in attributes:
            span.set_status(StatusCode.ERROR, attributes["error.type"])
        span.end()


def _attributes(connect: ConnectEvent) -> dict[str, Any]:
    return {
        "db.system.name": "postgresql",
        "db.namespace": connect.database,
        "server.address": connect.host,
        "server.port": int(connect.port or 0),
        "lakebase.endpoint": connect.endpoint,
        "lakebase.connect.attempts": connect.attempts,
    }


def _pool_name(alias: str) -> str:
    return f"django-{alias}"


def _read_by_state(pool: dict[str, int]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the numbers of idle and used connections, with their attributes."""
    idle = pool.get("pool_available", 0)
    yield idle, {"db.client.connection.state": "idle"}
    yield pool.get("pool_size", 0) - idle, {"db.client.connection.state": "used"}


def _reader(name: str) -> Any:
    """Return a function that reads the pool's stat *name*, without attributes."""
    return lambda pool: [(pool.get(name, 0), {})]


# By metric name: the unit, the description, and a function that takes the stats of a
# pool and returns pairs of value and attributes.
POOL_METRICS: dict[str, tuple[str, str, Any]] = {
    "db.client.connection.count": (
        "{connection}",
        "Connections in the pool, by state.",
        _read_by_state,
    ),
    "db.client.connection.max": (
        "{connection}",
        "The maximum number of connections in the pool.",
        _reader("pool_max"),
    ),
    "db.client.connection.pending_requests": (
        "{request}",
        "Callers that are waiting for a connection.",
        _reader("requests_waiting"),
    ),
    "lakebase.pool.connections.total": (
        "{connection}",
        "Connections in the pool.",
        _reader("pool_size"),
    ),
    "lakebase.pool.connections.idle": (
        "{connection}",
        "Idle connections in the pool.",
        _reader("pool_available"),
    ),
    "lakebase.pool.connections.waiting": (
        "{request}",
        "Callers that are waiting for a connection.",
        _reader("requests_waiting"),
    ),
}


def _gauge_callback(read: Any) -> Any:
    """Return a callback that reads the stats of all pools at collection time."""

    def callback(options: CallbackOptions) -> Iterator[Observation]:
        for stats in _stats_with_pool():
            name = {"db.client.connection.pool.name": _pool_name(stats.alias)}
            for value, attributes in read(stats.pool):
                yield Observation(value, {**name, **attributes})

    return callback


def _stats_with_pool() -> list[Stats]:
    try:
        return [stats for stats in get_stats().values() if stats.pool]
    except SettingsError:
        return []
