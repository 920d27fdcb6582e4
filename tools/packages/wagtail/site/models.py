"""A page type."""

from django.db import models
from wagtail.admin.panels import FieldPanel
from wagtail.models import Page
from wagtail.search import index


class TextPage(Page):
    """A page with a title and a text."""

    body = models.TextField(blank=True)
    content_panels = [*Page.content_panels, FieldPanel("body")]
    search_fields = [*Page.search_fields, index.SearchField("body")]
    template = "wagtail_site/page.html"

    def serve(self, request, *args, **kwargs):
        from django.http import HttpResponse

        return HttpResponse(f"{self.title}: {self.body}")
