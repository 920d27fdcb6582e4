"""The admin, a page that reads from the database, and pages that show the user."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import path

from .models import Note


def count(request: HttpRequest) -> HttpResponse:
    """Return the number of notes."""
    return HttpResponse(str(Note.objects.count()))


def user(request: HttpRequest) -> HttpResponse:
    """Return the name of the user; use the session and the CSRF cookie."""
    get_token(request)
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(request.user.get_username())


async def async_user(request: HttpRequest) -> HttpResponse:
    """Return the name of the user."""
    return HttpResponse((await request.auser()).get_username())


urlpatterns = [
    path("admin/", admin.site.urls),
    path("async-user/", async_user),
    path("count/", count),
    path("user/", user),
]
