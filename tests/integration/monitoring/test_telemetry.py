"""Metrics and spans, as the OpenTelemetry SDK records them."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("opentelemetry.sdk")

# Global providers can be set only once in a process, so each test starts one.
PROGRAM = """
import json, sys, time
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

reader, spans = InMemoryMetricReader(), InMemorySpanExporter()
metrics.set_meter_provider(MeterProvider([reader]))
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)

import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {
        "ENGINE": "django_lakebase",
        "OPTIONS": {"pool": {"min_size": 2, "max_size": 4, **json.loads(sys.argv[2])}},
    }},
    INSTALLED_APPS=["django_lakebase"],
)
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
exec(sys.argv[1])
connection.pool.wait()
with trace.get_tracer("test").start_as_current_span("request"):
    pass
points = {}
for resource in reader.get_metrics_data().resource_metrics:
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            points[metric.name] = [
                {"unit": metric.unit, **dict(point.attributes),
                 "value": getattr(point, "value", None) or getattr(point, "count", 0)}
                for point in metric.data.data_points
            ]
shown = [json.loads(span.to_json()) for span in spans.get_finished_spans()]
connection.close_pool()
print(json.dumps({"points": points, "spans": shown}))
"""


@pytest.fixture
def recorded(local):
    """Return a function that runs a process and returns what it has recorded."""

    def record(more="pass", **pool):
        found = subprocess.run(
            [sys.executable, "-c", PROGRAM, more, json.dumps(pool)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        assert "eyJ" not in found.stdout
        return json.loads(found.stdout)

    return record


def test_metrics_and_spans_follow_the_semantic_conventions(recorded, local):
    """For the request of the credential, the connections and the pool."""
    found = recorded()
    points, spans = found["points"], {span["name"]: span for span in found["spans"]}

    [refresh] = points["lakebase.token.refresh.duration"]
    assert (refresh["unit"], refresh["value"]) == ("ms", 1)
    assert refresh["lakebase.endpoint"] == local.env["ENDPOINT_NAME"]
    [created] = points["db.client.connection.create_time"]
    assert created["unit"] == "s"
    assert created["db.client.connection.pool.name"] == "django-default"
    counted = points["db.client.connection.count"]
    by_state = {p["db.client.connection.state"]: p["value"] for p in counted}
    assert by_state == {"idle": created["value"] - 1, "used": 1}
    [limit] = points["db.client.connection.max"]
    assert (limit["unit"], limit["value"]) == ("{connection}", 4)
    [pending] = points["db.client.connection.pending_requests"]
    assert (pending["unit"], pending["value"]) == ("{request}", 0)
    connect = spans["lakebase.connect"]["attributes"]
    assert connect["db.system.name"] == "postgresql"
    assert connect["server.address"] == local.env["PGHOST"]
    assert connect["lakebase.connect.attempts"] == 1
    assert "lakebase.token.expires_at" in spans["lakebase.token.refresh"]["attributes"]


def test_each_metric_of_a_pool_has_one_name(recorded):
    assert set(recorded()["points"]) == {
        "lakebase.token.refresh.duration",
        "db.client.connection.create_time",
        "db.client.connection.count",
        "db.client.connection.max",
        "db.client.connection.pending_requests",
    }


def test_metrics_have_the_name_that_the_project_gave_its_pool(recorded):
    points = recorded(LOSE_SESSION, name="shop")["points"]

    names = {
        point["db.client.connection.pool.name"]
        for name, found in points.items()
        if name != "lakebase.token.refresh.duration"
        for point in found
    }
    assert "lakebase.session.reopened" in points
    assert names == {"shop"}


def test_retry_is_counted_with_its_failure_id_as_error_type(recorded, local):
    with local.fault("reject-logins", count=1, message="jwt"):
        points = recorded()["points"]

    [retried] = points["lakebase.connection.retries"]
    assert (retried["error.type"], retried["value"]) == ("token-rejected", 1)


LOSE_SESSION = """
import select
other = connection.copy()
with other.cursor() as cursor:
    pid = connection.connection.info.backend_pid
    cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
other.close()
select.select([connection.connection.fileno()], [], [], 15)
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
"""


def test_reopened_session_is_counted_with_the_name_of_its_pool(recorded, local):
    points = recorded(LOSE_SESSION)["points"]

    [reopened] = points["lakebase.session.reopened"]
    assert reopened["db.client.connection.pool.name"] == "django-default"
    assert (reopened["unit"], reopened["value"]) == ("{session}", 1)


OVERRIDE_APPS = """
from django.test import override_settings
with override_settings(INSTALLED_APPS=["django_lakebase"]):
    pass
"""


def test_event_is_counted_once_if_the_app_is_loaded_again(recorded):
    """Django calls ready() again for a test that overrides INSTALLED_APPS."""
    found = recorded(OVERRIDE_APPS + LOSE_SESSION)

    [reopened] = found["points"]["lakebase.session.reopened"]
    assert reopened["value"] == 1
    refreshes = [s for s in found["spans"] if s["name"] == "lakebase.token.refresh"]
    assert len(refreshes) == 1
