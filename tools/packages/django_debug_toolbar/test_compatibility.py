"""django-debug-toolbar: its panels show the queries of a page and no secret."""

import html
import re

import pytest
from debug_toolbar.store import get_store
from debug_toolbar.toolbar import DebugToolbar
from django.urls import reverse

from tools.packages.notes.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def page(admin_client, settings):
    """Return a function that gets the notes in the admin, and the toolbar's id."""
    settings.DEBUG = True

    def get():
        page = admin_client.get("/admin/notes/note/").content.decode()
        return page, re.search(r'data-request-id="(\w+)"', page)[1]

    return get


def panel(client, request_id, name):
    """Return the content of the panel *name*."""
    response = client.get(
        reverse("djdt:render_panel"), {"request_id": request_id, "panel_id": name}
    )
    return response.json()["content"]


def test_sql_panel_shows_queries_after_token_expiry(page, admin_client, expire_tokens):
    Note.objects.create(text="seen")
    expire_tokens()

    _, request_id = page()

    shown = panel(admin_client, request_id, "SQLPanel")
    assert "notes_note" in shown
    assert "default" in shown


def test_query_is_explained_after_token_expiry(page, admin_client, expire_tokens):
    """The toolbar runs the query again in another request, with another token."""
    _, request_id = page()
    queries = get_store().panel(request_id, "SQLPanel")["queries"]
    forms = re.findall(
        r'name="signed" value="([^"]+)"', panel(admin_client, request_id, "SQLPanel")
    )
    [signed] = [
        html.unescape(form)
        for query, form in zip(queries, forms, strict=True)
        if "COUNT(*)" in query["sql"] and "WHERE" in query["sql"]
    ] or [html.unescape(forms[-1])]
    expire_tokens()

    response = admin_client.post(reverse("djdt:sql_explain"), {"signed": signed})

    assert "Seq Scan on notes_note" in response.json()["content"]


def test_no_panel_shows_a_secret(page, admin_client, assert_no_secret):
    """The page that contains the toolbar shows none either."""
    shown_page, request_id = page()
    names = [cls.panel_id for cls in DebugToolbar.get_panel_classes()]

    shown = {name: panel(admin_client, request_id, name) for name in names}

    assert "client_secret" in shown["SettingsPanel"]
    assert_no_secret(shown_page)
    assert_no_secret("".join(map(str, shown.values())))
