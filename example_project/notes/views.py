"""Views: the page, and its facts as JSON."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from .facts import collect_facts, requests
from .models import Note


def page(request: HttpRequest) -> HttpResponse:
    """Show the notes and the connection that served the request."""
    requests.increment()
    context = {"notes": Note.objects.all(), "facts": collect_facts()}
    return render(request, "notes/page.html", context)


def facts(request: HttpRequest) -> JsonResponse:
    """Return the facts as JSON; the page polls them."""
    requests.increment()
    notes = Note.objects.count()
    return JsonResponse(collect_facts().as_json() | {"notes": notes})
