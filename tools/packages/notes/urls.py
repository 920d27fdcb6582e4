"""URLs of the admin, and of a view that queries the database."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import path

from .models import Note


def count(request: HttpRequest) -> HttpResponse:
    """Respond with the number of notes."""
    return HttpResponse(str(Note.objects.count()))


urlpatterns = [path("admin/", admin.site.urls), path("count/", count)]
