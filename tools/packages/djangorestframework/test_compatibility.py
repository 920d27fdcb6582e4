"""Django REST framework: API and browsable pages, with a pool and atomic requests."""

import pytest
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from tools.packages.notes.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


def test_notes_are_created_updated_and_deleted_across_token_expiry(
    admin_user, expire_tokens
):
    client = APIClient()
    token = Token.objects.create(user=admin_user)
    client.credentials(HTTP_AUTHORIZATION=f"Token {token.key}")

    created = client.post("/api/notes/", {"text": "first"}, format="json")
    url = f"/api/notes/{created.json()['id']}/"
    expire_tokens()
    read = client.get(url)
    updated = client.patch(url, {"text": "second"}, format="json")
    expire_tokens()
    deleted = client.delete(url)

    assert created.status_code == 201
    assert read.json()["text"] == "first"
    assert updated.json()["text"] == "second"
    assert deleted.status_code == 204
    assert Note.objects.count() == 0


def test_browsable_api_creates_and_paginates_notes(admin_client, expire_tokens):
    for text in ("one", "two"):
        admin_client.post("/api/notes/", {"text": text})
    expire_tokens()
    admin_client.post("/api/notes/", {"text": "three"})

    page = admin_client.get("/api/notes/", headers={"accept": "text/html"})
    first = admin_client.get("/api/notes/").json()
    second = admin_client.get(first["next"]).json()

    assert b"Django REST framework" in page.content
    assert b'name="text"' in page.content
    assert [n["text"] for n in first["results"]] == ["one", "two"]
    assert [n["text"] for n in second["results"]] == ["three"]


def test_invalid_request_is_rejected_and_creates_nothing(admin_client):
    response = admin_client.post("/api/notes/", {"text": "x" * 101})

    assert response.status_code == 400
    assert Note.objects.count() == 0
