"""The page and its facts."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from . import facts as known
from .models import Note


def page(request: HttpRequest) -> HttpResponse:
    """Show the notes and the connection that brought them."""
    known.requests.add()
    context = {"notes": Note.objects.all(), "facts": known.gather()}
    return render(request, "notes/page.html", context)


def facts(request: HttpRequest) -> JsonResponse:
    """Tell the facts alone, for whoever watches."""
    known.requests.add()
    notes = Note.objects.count()
    return JsonResponse(known.gather().as_json() | {"notes": notes})
