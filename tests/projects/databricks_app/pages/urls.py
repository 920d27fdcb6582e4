"""A page that says who is signed in and how the database was reached; the admin."""

from typing import Any

from django.contrib import admin
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.urls import path

from django_lakebase.stats import get_stats


def page(request: HttpRequest) -> JsonResponse:
    """Return the user, the session of the database, and the credentials so far."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_user, current_schema(), pg_backend_pid(), "
            "(SELECT count(*) FROM django_migrations)"
        )
        role, schema, pid, migrations = cursor.fetchone()
    facts: dict[str, Any] = {
        "user": str(request.user),
        "role": role,
        "schema": schema,
        "session": pid,
        "migrations": migrations,
        "credentials": get_stats()["default"].credentials_issued,
    }
    return JsonResponse(facts)


urlpatterns = [path("", page), path("admin/", admin.site.urls)]
