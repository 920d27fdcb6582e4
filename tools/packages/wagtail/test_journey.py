"""Wagtail: all its migrations, the editor's login, a page, and its search."""

import pytest
from django.urls import reverse
from wagtail.models import Page, Site

from tools.packages.wagtail.site.models import TextPage

pytestmark = pytest.mark.django_db(transaction=True, serialized_rollback=True)


def test_an_editor_logs_in_and_publishes(client, admin_user, outlive_token):
    """By the forms of the admin, with tokens that end in between."""
    login = reverse("wagtailadmin_login")
    answer = client.post(
        login, {"username": "admin", "password": "password"}, follow=True
    )
    assert b"Journey" in answer.content
    outlive_token()
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

    answer = client.post(url, form, follow=True)
    outlive_token()

    assert answer.status_code == 200
    assert TextPage.objects.get().live
    assert client.get("/rotation/").content == b"Rotation: a fresh token"


def test_pages_are_found_and_moved(outlive_token):
    """By PostgreSQL's own full text search, and by treebeard's SQL."""
    home = Site.objects.get().root_page
    rivers = TextPage(title="Rivers", body="water running downhill")
    home.add_child(instance=rivers)
    below = home.add_child(instance=TextPage(title="Below"))
    outlive_token()

    # Not as it is written: by its stem.
    found = TextPage.objects.live().search("run")
    below.move(rivers, pos="last-child")

    assert [page.title for page in found] == ["Rivers"]
    assert Page.objects.get(pk=below.pk).get_parent().pk == rivers.pk
    assert Page.find_problems() == ([], [], [], [], [])
