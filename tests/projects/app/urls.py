"""The admin, and a page that reads from the database."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path

from .models import Note


def count(request: HttpRequest) -> HttpResponse:
    """Return the number of notes."""
    return HttpResponse(str(Note.objects.count()))


urlpatterns = [path("admin/", admin.site.urls), path("count/", count)]
