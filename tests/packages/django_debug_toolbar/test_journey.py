"""django-debug-toolbar: its panels show what a page did, and no secret."""

import html
import re

import pytest
from debug_toolbar.store import get_store
from debug_toolbar.toolbar import DebugToolbar
from django.urls import reverse

from tests.projects.app.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def page(admin_client, settings):
    """Give the page of the notes and the toolbar's id for it."""
    settings.DEBUG = True

    def get():
        page = admin_client.get("/admin/app/note/").content.decode()
        return page, re.search(r'data-request-id="(\w+)"', page)[1]

    return get


def panel(client, request_id, name):
    """Return what the toolbar shows when *name* is clicked."""
    answer = client.get(
        reverse("djdt:render_panel"), {"request_id": request_id, "panel_id": name}
    )
    return answer.json()["content"]


def test_the_sql_panel_shows_queries_past_the_tokens_end(
    page, admin_client, outlive_token
):
    """With the alias and Django's name for the vendor."""
    Note.objects.create(text="seen")
    outlive_token()

    _, request_id = page()

    shown = panel(admin_client, request_id, "SQLPanel")
    assert "app_note" in shown
    assert "default" in shown


def test_a_query_can_be_explained(page, admin_client, outlive_token):
    """The toolbar runs it again, in another request, with another token."""
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
    outlive_token()

    answer = admin_client.post(reverse("djdt:sql_explain"), {"signed": signed})

    assert "Seq Scan on app_note" in answer.json()["content"]


def test_no_panel_shows_a_secret(page, admin_client, assert_no_secret):
    """Nor does the page with the toolbar in it, and the settings hide theirs."""
    shown_page, request_id = page()
    names = [cls.panel_id for cls in DebugToolbar.get_panel_classes()]

    shown = {name: panel(admin_client, request_id, name) for name in names}

    assert "client_secret" in shown["SettingsPanel"]
    assert_no_secret(shown_page)
    assert_no_secret("".join(map(str, shown.values())))
