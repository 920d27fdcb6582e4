"""Wagtail: its migrations, an editor's login, pages and search."""

import pytest
from django.urls import reverse
from wagtail.models import Page, Site

from tools.packages.wagtail.site.models import TextPage

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


def test_editor_publishes_a_page_across_token_expiry(client, admin_user, expire_tokens):
    login = reverse("wagtailadmin_login")
    response = client.post(
        login, {"username": "admin", "password": "password"}, follow=True
    )
    assert b"Example site" in response.content
    expire_tokens()
    home = Site.objects.get().root_page
    url = reverse("wagtailadmin_pages:add", args=["site", "textpage", home.pk])
    assert client.get(url).status_code == 200
    form = {
        "title": "Rotation",
        "slug": "rotation",
        "body": "a fresh token",
        "comments-TOTAL_FORMS": 0,
        "comments-INITIAL_FORMS": 0,
        "action-publish": "yes",
    }

    response = client.post(url, form, follow=True)
    expire_tokens()

    assert response.status_code == 200
    assert TextPage.objects.get().live
    assert client.get("/rotation/").content == b"Rotation: a fresh token"


def test_pages_are_found_and_moved_after_token_expiry(expire_tokens):
    """With PostgreSQL's full text search, and with the SQL of treebeard."""
    home = Site.objects.get().root_page
    rivers = TextPage(title="Rivers", body="water running downhill")
    home.add_child(instance=rivers)
    below = home.add_child(instance=TextPage(title="Below"))
    expire_tokens()

    # The text contains "running", which has the same stem.
    found = TextPage.objects.live().search("run")
    below.move(rivers, pos="last-child")

    assert [page.title for page in found] == ["Rivers"]
    assert Page.objects.get(pk=below.pk).get_parent().pk == rivers.pk
    assert Page.find_problems() == ([], [], [], [], [])
