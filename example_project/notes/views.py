"""Views: the page, its facts as JSON, and its timeline."""

import os
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone

from .facts import collect_facts
from .models import Note
from .recorder import recorded, recorder
from .timeline import draw


@recorded
def page(request: HttpRequest) -> HttpResponse:
    """Show the notes and the connection that served the request."""
    context = {"notes": Note.objects.all(), "facts": collect_facts()}
    return render(request, "notes/page.html", context | _timeline_context(request))


@recorded
def facts(request: HttpRequest) -> HttpResponse:
    """Return the facts as JSON; the page polls them."""
    notes = Note.objects.count()
    return JsonResponse(collect_facts().as_json() | {"notes": notes})


def timeline(request: HttpRequest) -> HttpResponse:
    """
    Return the timeline as HTML; the page polls it.

    It needs no database, so the page shows a failure while it lasts. It is not recorded
    as a request.
    """
    return render(request, "notes/timeline.html", _timeline_context(request))


def _timeline_context(request: HttpRequest) -> dict[str, Any]:
    return {
        "picture": draw(recorder.get_tracks(), timezone.now()),
        "process": os.getpid(),
        # Whether other processes serve this page, too (PEP 3333).
        "has_siblings": request.META.get("wsgi.multiprocess", False),
    }
