"""django-health-check: a health endpoint that queries the database."""

import pytest
from django.db import connection

pytestmark = pytest.mark.django_db(transaction=True)


def health(client):
    """Return status and body of the endpoint."""
    response = client.get("/health/", {"format": "json"})
    return response.status_code, response.content.decode()


def test_check_succeeds_after_token_expiry(client, expire_tokens):
    """Each check opens a new connection."""
    before = health(client)
    expire_tokens()

    assert before[0] == 200
    assert health(client) == before
    assert "OK" in before[1]


def test_check_fails_only_while_the_endpoint_is_disabled(
    client, local, caplog, assert_no_secret
):
    """The response names the alias; the log contains the summary and the hint."""
    connection.close()
    with local.fault("endpoint-disabled"):
        status, shown = health(client)

    assert status == 500
    assert "default" in shown
    assert "is disabled" in caplog.text
    assert "Enable it in the Lakebase project" in caplog.text
    assert_no_secret(shown + caplog.text)
    assert health(client)[0] == 200
