"""OpenTelemetry: Django and psycopg instrumented, with and without a pool."""

import pytest
from django.db import connection
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tools.packages.notes.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def spans():
    """Return a function that returns the spans since its last call."""
    connection.close()
    connection.close_pool()
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentors = [DjangoInstrumentor(), PsycopgInstrumentor()]
    for instrumentor in instrumentors:
        instrumentor.instrument(
            tracer_provider=provider,
            capture_parameters=True,
            enable_commenter=True,
            is_sql_commentor_enabled=True,
        )

    def finished():
        provider.force_flush()
        found = exporter.get_finished_spans()
        exporter.clear()
        return found

    yield finished
    for instrumentor in instrumentors:
        instrumentor.uninstrument()
    connection.close()
    connection.close_pool()


@pytest.mark.parametrize("pool", [True, False], ids=["pool", "plain"])
def test_queries_are_traced_after_token_expiry(
    spans, client, expire_tokens, assert_no_secret, pool, settings
):
    """The span of a statement has database and user, and the trace of its request."""
    if not pool:
        connection.settings_dict["OPTIONS"].pop("pool", None)
    Note.objects.create(text="traced")
    expire_tokens()
    spans()

    assert client.get("/count/").content == b"1"

    found = spans()
    shown = [span.to_json() for span in found]
    [query] = [span for span in found if "notes_note" in str(dict(span.attributes))]
    [request] = [span for span in found if span.kind is trace.SpanKind.SERVER]
    assert query.attributes["db.system"] == "postgresql"
    assert query.attributes["db.user"] == connection.settings_dict["USER"]
    assert query.attributes["db.name"] == connection.settings_dict["NAME"]
    assert query.context.trace_id == request.context.trace_id
    assert_no_secret("".join(shown))


def test_failed_connect_records_no_secret(spans, client, local, assert_no_secret):
    """The request's span contains the exception with its traceback."""
    client.raise_request_exception = False

    with local.fault("endpoint-disabled"):
        assert client.get("/count/").status_code == 500

    shown = "".join(span.to_json() for span in spans())
    assert "is disabled" in shown
    assert_no_secret(shown)
