"""Views that return which process and which server session has answered."""

import os
import uuid
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from example_project.notes.facts import collect_facts
from example_project.notes.models import Note


def tell() -> dict[str, Any]:
    """Write a row, read it back, and return the facts of this process."""
    text = str(uuid.uuid4())
    written = Note.objects.create(text=text)
    assert Note.objects.get(pk=written.pk).text == text
    facts = collect_facts()
    return {
        "pid": os.getpid(),
        "session": facts.session,
        "expires_at": facts.credential_expires_at,
        "issued": facts.credentials,
    }


def facts(request: HttpRequest) -> JsonResponse:
    """Return the facts in the thread of the server."""
    return JsonResponse(tell())


async def facts_async(request: HttpRequest) -> JsonResponse:
    """Return the facts in an event loop, with the async ORM and then in a thread."""
    written = await Note.objects.acreate(text="asynchronous")
    await written.adelete()
    return JsonResponse(await sync_to_async(tell)())


def pong(request: HttpRequest) -> HttpResponse:
    """Return without using the database."""
    return HttpResponse("pong")


def wait(request: HttpRequest) -> HttpResponse:
    """Return when the advisory lock *number* is free."""
    with connection.cursor() as cursor:
        number = int(request.GET["lock"])
        cursor.execute("SELECT pg_advisory_lock_shared(%s)", [number])
        cursor.execute("SELECT pg_advisory_unlock_shared(%s)", [number])
    return HttpResponse("done")
