"""Sentry: events and spans have all details but no token."""

import json
from wsgiref.util import setup_testing_defaults

import pytest
import sentry_sdk
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.scrubber import EventScrubber
from sentry_sdk.transport import Transport

pytestmark = pytest.mark.django_db(transaction=True)


class Collector(Transport):
    """A transport that keeps the events."""

    def __init__(self):
        super().__init__({})
        self.sent = []

    def capture_envelope(self, envelope):
        self.sent += [item.payload.json for item in envelope.items]


@pytest.fixture
def sent(monkeypatch):
    """Return the list of events sent, with every detail enabled."""
    # By default, Sentry sends only ten keys of a dict.
    monkeypatch.setattr(sentry_sdk.serializer, "MAX_DATABAG_BREADTH", 1000)
    collector = Collector()
    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=collector,
        integrations=[DjangoIntegration(middleware_spans=True)],
        include_local_variables=True,
        # By default, Sentry hides all values whose name contains "password".
        event_scrubber=EventScrubber(denylist=[], pii_denylist=[]),
        max_value_length=100_000,
        send_default_pii=True,
        traces_sample_rate=1.0,
    )
    yield collector.sent
    sentry_sdk.get_client().close()


def get(path):
    """Request *path* like a WSGI server, and return the status."""
    environ = {"PATH_INFO": path, "HTTP_HOST": "testserver"}
    setup_testing_defaults(environ)
    statuses = []
    body = WSGIHandler()(environ, lambda status, _: statuses.append(status))
    b"".join(body)
    body.close()
    return statuses[0]


def test_request_is_traced_after_token_expiry(sent, expire_tokens, assert_no_secret):
    """Sentry wraps connect() and reads the connection parameters."""
    expire_tokens()

    assert get("/count/") == "200 OK"

    [transaction] = [each for each in sent if each.get("type") == "transaction"]
    spans = {span["op"]: span for span in transaction["spans"]}
    assert spans["db"]["data"]["db.system"] == "postgresql"
    assert spans["db"]["data"]["db.name"] == connection.settings_dict["NAME"]
    assert "connect" in [span["description"] for span in transaction["spans"]]
    assert_no_secret(json.dumps(sent))


@pytest.mark.parametrize("host", ["from environment", "from workspace"])
@pytest.mark.parametrize(
    "fault", ["endpoint-disabled", "role-missing", "secret-revoked"]
)
def test_failed_connect_sends_no_secret(
    sent, local, fault, host, assert_no_secret, reset_engine, monkeypatch
):
    """Sentry sends the local variables of all frames, also of the causes."""
    connection.close()
    if host != "from environment":
        monkeypatch.setitem(connection.settings_dict, "HOST", "")
        monkeypatch.delenv("PGHOST")
    if fault == "secret-revoked":
        reset_engine()

    with local.fault(fault):
        assert get("/count/") == "500 Internal Server Error"

    [error] = [each for each in sent if "exception" in each]
    values = error["exception"]["values"]
    traces = [value["stacktrace"] for value in values if "stacktrace" in value]
    frames = [frame for trace in traces for frame in trace["frames"]]
    assert any("conn_params" in frame["vars"] for frame in frames)
    assert values[-1]["value"].startswith('DATABASES["default"]: ')
    assert_no_secret(json.dumps(sent))
