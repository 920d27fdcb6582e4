"""Django REST framework: an API and its pages, with a pool and atomic requests."""

import pytest
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from tests.projects.app.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


def test_notes_are_made_read_changed_and_deleted(admin_user, outlive_token):
    """By a client with an API token, whose database token ends in between."""
    client = APIClient()
    token = Token.objects.create(user=admin_user)
    client.credentials(HTTP_AUTHORIZATION=f"Token {token.key}")

    made = client.post("/api/notes/", {"text": "first"}, format="json")
    address = f"/api/notes/{made.json()['id']}/"
    outlive_token()
    read = client.get(address)
    changed = client.patch(address, {"text": "second"}, format="json")
    outlive_token()
    gone = client.delete(address)

    assert made.status_code == 201
    assert read.json()["text"] == "first"
    assert changed.json()["text"] == "second"
    assert gone.status_code == 204
    assert Note.objects.count() == 0


def test_the_api_can_be_browsed(admin_client, outlive_token):
    """The page has the forms, takes them, and turns its pages."""
    for text in ("one", "two"):
        admin_client.post("/api/notes/", {"text": text})
    outlive_token()
    admin_client.post("/api/notes/", {"text": "three"})

    page = admin_client.get("/api/notes/", headers={"accept": "text/html"})
    first = admin_client.get("/api/notes/").json()
    second = admin_client.get(first["next"]).json()

    assert b"Django REST framework" in page.content
    assert b'name="text"' in page.content
    assert [n["text"] for n in first["results"]] == ["one", "two"]
    assert [n["text"] for n in second["results"]] == ["three"]


def test_a_request_that_fails_leaves_nothing(admin_client):
    """Its transaction is rolled back, and the error is the API's."""
    answer = admin_client.post("/api/notes/", {"text": "x" * 101})

    assert answer.status_code == 400
    assert Note.objects.count() == 0
