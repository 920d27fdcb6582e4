"""A view that queries the tenant's schema."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from example_project.notes.models import Note


def texts(request: HttpRequest) -> HttpResponse:
    """Respond with the tenant's notes."""
    return HttpResponse(",".join(note.text for note in Note.objects.all()))


urlpatterns = [path("", texts)]
