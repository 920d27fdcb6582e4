"""Benchmark of requests through the engine's pool and through Django's."""

import io
from collections.abc import Callable, Iterator
from typing import Any

from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import override_settings
from django.test.client import FakePayload
from django.urls import path

from benchmarks import backends
from benchmarks.measurement import Measurement, compare, measure_alternately

POOL = {"min_size": 2, "max_size": 2}
# Enough that a round is long compared with clock resolution and scheduling noise.
REQUESTS_PER_ROUND = 20
ROUNDS = 400
LIMIT = 1.02


def pool(*, quick: bool) -> Iterator[Measurement]:
    """Compare a request through the engine's pool to one through Django's."""
    rounds = ROUNDS // (40 if quick else 1)
    with backends.running_lakebase() as local:
        pair = [
            backends.lakebase_connection(OPTIONS={"pool": POOL}),
            backends.stock_connection(local, OPTIONS={"pool": POOL}),
        ]
        try:
            for connection in pair:
                connections[connection.alias] = connection
            with override_settings(ROOT_URLCONF=_url_patterns(pair)):
                requests = [_requests_to(connection.alias) for connection in pair]
                seconds = measure_alternately(requests, rounds)
                yield compare("a request through the pool, one query", seconds, LIMIT)
            checkouts = [_checkouts_of(connection) for connection in pair]
            seconds = measure_alternately(checkouts, rounds)
            yield compare("only checkout, SELECT 1 and return", seconds)
        finally:
            for connection in pair:
                backends.close(connection)
                del connections[connection.alias]


def _url_patterns(pair: list[Any]) -> tuple[Any, ...]:
    """Return the URLs of a site that runs one query on each connection."""

    def view_for(connection: Any) -> Callable[[HttpRequest], HttpResponse]:
        def view(request: HttpRequest) -> HttpResponse:
            backends.run_query(connection)
            return HttpResponse("ok")

        return view

    return tuple(path(connection.alias, view_for(connection)) for connection in pair)


def _requests_to(url: str) -> Callable[[], None]:
    """Return a function that makes one round of requests, as a WSGI server does."""
    handler = WSGIHandler()
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": f"/{url}",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }

    def requests() -> None:
        for _ in range(REQUESTS_PER_ROUND):
            response = handler(
                {**environ, "wsgi.input": FakePayload()}, _start_response
            )
            assert b"".join(response) == b"ok"
            response.close()

    return requests


def _start_response(*_: object) -> Callable[[bytes], object]:
    """Ignore the status and the headers."""
    return io.BytesIO().write


def _checkouts_of(connection: Any) -> Callable[[], None]:
    def checkouts() -> None:
        for _ in range(REQUESTS_PER_ROUND):
            backends.run_query(connection)
            connection.close()

    return checkouts
