"""django-health-check: a health endpoint that asks the database."""

import pytest
from django.db import connection

pytestmark = pytest.mark.django_db(transaction=True)


def health(client):
    """Return status and body of the endpoint."""
    answer = client.get("/health/", {"format": "json"})
    return answer.status_code, answer.content.decode()


def test_health_is_reported_past_the_tokens_end(client, outlive_token):
    """Each probe opens a connection of its own."""
    before = health(client)
    outlive_token()

    assert before[0] == 200
    assert health(client) == before
    assert "OK" in before[1]


def test_a_disabled_endpoint_is_ill_until_it_is_enabled(
    client, local, caplog, assert_no_secret
):
    """The answer names the alias; the reason and its mend are in the log."""
    connection.close()
    with local.fault("endpoint-disabled"):
        status, shown = health(client)

    assert status == 500
    assert "default" in shown
    assert "is disabled" in caplog.text
    assert "Enable it in the Lakebase project" in caplog.text
    assert_no_secret(shown + caplog.text)
    assert health(client)[0] == 200
