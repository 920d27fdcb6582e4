"""
OpenTelemetry metrics and spans, recorded from the signals (the extra ``otel``).

The app imports this module only if OpenTelemetry's API is installed. Names follow the
semantic conventions for database clients
(https://opentelemetry.io/docs/specs/semconv/db/). Names that start with ``lakebase.``
follow the vendor's connector for Node where it has an equivalent.
docs/reference/observability.md lists them all.
"""

import contextlib
import functools
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.db import connections
from opentelemetry import metrics, trace
from opentelemetry.metrics import Observation
from opentelemetry.trace import SpanKind, StatusCode

from . import __version__, signals
from .events import ConnectEvent
from .exceptions import SettingsError
from .stats import get_stats

NANOSECONDS = 1_000_000_000


class Telemetry:
    """The receivers of the signals, which record metrics and spans."""

    def start(self) -> None:
        """Create the instruments, and connect the receivers to the signals."""
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
        meter.create_observable_gauge(
            "db.client.connection.count",
            callbacks=[lambda _: _observe_by_state()],
            unit="{connection}",
            description="Connections in the pool, by state.",
        )
        meter.create_observable_gauge(
            "db.client.connection.max",
            callbacks=[lambda _: _observe("pool_max")],
            unit="{connection}",
            description="The maximum number of connections in the pool.",
        )
        meter.create_observable_gauge(
            "db.client.connection.pending_requests",
            callbacks=[lambda _: _observe("requests_waiting")],
            unit="{request}",
            description="Callers that are waiting for a connection.",
        )
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
        self._create_time.record(connect.seconds, pool_attributes(connect.alias))
        self._span("lakebase.connect", connect.seconds, _attributes(connect))

    def connection_retried(
        self, *, connect: ConnectEvent, failure_id: str, **kwargs: Any
    ) -> None:
        """Count a failed attempt that is retried."""
        attributes = {**pool_attributes(connect.alias), "error.type": failure_id}
        self._retries.add(1, attributes)

    def connection_failed(
        self, *, connect: ConnectEvent, failure_id: str, **kwargs: Any
    ) -> None:
        """Record a connection that could not be opened."""
        attributes = {**_attributes(connect), "error.type": failure_id}
        self._span("lakebase.connect", connect.seconds, attributes)

    def session_reopened(self, *, alias: str, **kwargs: Any) -> None:
        """Count a session that was lost while idle, and replaced."""
        self._reopened.add(1, pool_attributes(alias))

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


@functools.cache
def start_once() -> Telemetry:
    """
    Start telemetry, unless this process has already started it.

    Cached, because Django loads the app again for tests that override INSTALLED_APPS,
    and because signals refer to their receivers weakly.
    """
    telemetry = Telemetry()
    telemetry.start()
    return telemetry


def _attributes(connect: ConnectEvent) -> dict[str, Any]:
    return {
        "db.system.name": "postgresql",
        "db.namespace": connect.database,
        "server.address": connect.host,
        "server.port": int(connect.port or 0),
        "lakebase.endpoint": connect.endpoint,
        "lakebase.connect.attempts": connect.attempts,
    }


def pool_attributes(alias: str) -> dict[str, Any]:
    """Return the attribute with the name of the pool of *alias*; does no I/O."""
    match connections.settings.get(alias):
        case {"OPTIONS": {"pool": {"name": str(name)}}}:
            pass
        case _:
            name = f"django-{alias}"
    return {"db.client.connection.pool.name": name}


def _observe(stat: str) -> Iterator[Observation]:
    """Yield *stat*, a name in psycopg_pool's stats, of each alias with a pool."""
    for attributes, pool in _pools():
        yield Observation(pool.get(stat, 0), attributes)


def _observe_by_state() -> Iterator[Observation]:
    """Yield the numbers of idle and used connections of each alias with a pool."""
    for attributes, pool in _pools():
        idle = pool.get("pool_available", 0)
        used = pool.get("pool_size", 0) - idle
        yield Observation(idle, {**attributes, "db.client.connection.state": "idle"})
        yield Observation(used, {**attributes, "db.client.connection.state": "used"})


def _pools() -> Iterator[tuple[dict[str, Any], dict[str, int]]]:
    """Yield the attributes and psycopg_pool's stats of each alias with a pool."""
    with contextlib.suppress(SettingsError):
        for stats in get_stats().values():
            if stats.pool:
                yield pool_attributes(stats.alias), stats.pool
