"""Pages that tell who answered, and through which session."""

import os
import uuid
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse

from example_project.notes.facts import gather
from example_project.notes.models import Note


def tell() -> dict[str, Any]:
    """Write a row, read it back, and tell the facts of this process."""
    text = str(uuid.uuid4())
    written = Note.objects.create(text=text)
    assert Note.objects.get(pk=written.pk).text == text
    facts = gather()
    return {
        "pid": os.getpid(),
        "session": facts.session,
        "expires_at": facts.credential_expires_at,
        "issued": facts.credentials,
    }


def facts(request: HttpRequest) -> JsonResponse:
    """Answer in the server's own thread."""
    return JsonResponse(tell())


async def facts_async(request: HttpRequest) -> JsonResponse:
    """Answer from an event loop: by the ORM's own methods, then in a thread."""
    written = await Note.objects.acreate(text="asynchronous")
    await written.adelete()
    return JsonResponse(await sync_to_async(tell)())


def pong(request: HttpRequest) -> HttpResponse:
    """Answer without the database."""
    return HttpResponse("pong")


def wait(request: HttpRequest) -> HttpResponse:
    """Answer as soon as nobody else holds the lock of that number."""
    with connection.cursor() as cursor:
        number = int(request.GET["lock"])
        cursor.execute("SELECT pg_advisory_lock_shared(%s)", [number])
        cursor.execute("SELECT pg_advisory_unlock_shared(%s)", [number])
    return HttpResponse("done")
