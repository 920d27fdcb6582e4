"""Requests through a pool: Django's own, and ours."""

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
from benchmarks.measurement import Figure, compared, turns

POOL = {"min_size": 2, "max_size": 2}
# Requests in a round, so that a round is longer than the clock's and kernel's moods.
IN_A_ROUND = 20
ROUNDS = 400
MOST = 1.02


def pools(*, quick: bool) -> Iterator[Figure]:
    """Compare a request through our pool to one through Django's."""
    rounds = ROUNDS // (40 if quick else 1)
    with backends.lakebase() as local:
        wrappers = [
            backends.ours(OPTIONS={"pool": POOL}),
            backends.stock(local, OPTIONS={"pool": POOL}),
        ]
        try:
            for wrapper in wrappers:
                connections[wrapper.alias] = wrapper
            with override_settings(ROOT_URLCONF=_serving(wrappers)):
                ways = [_requesting(wrapper.alias) for wrapper in wrappers]
                taken = turns(ways, rounds)
                yield compared("a request through the pool, one query", taken, MOST)
            taken = turns([_borrowing(wrapper) for wrapper in wrappers], rounds)
            yield compared("checkout, SELECT 1 and return alone", taken)
        finally:
            for wrapper in wrappers:
                backends.close(wrapper)
                del connections[wrapper.alias]


def _serving(wrappers: list[Any]) -> tuple[Any, ...]:
    """Return the addresses of a site that runs one query for each wrapper."""

    def view(wrapper: Any) -> Callable[[HttpRequest], HttpResponse]:
        def answer(request: HttpRequest) -> HttpResponse:
            backends.query(wrapper)
            return HttpResponse("well")

        return answer

    return tuple(path(wrapper.alias, view(wrapper)) for wrapper in wrappers)


def _requesting(address: str) -> Callable[[], None]:
    """Return the work of some requests, as a WSGI server makes them."""
    handler = WSGIHandler()
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": f"/{address}",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }

    def requests() -> None:
        for _ in range(IN_A_ROUND):
            answer = handler({**environ, "wsgi.input": FakePayload()}, _start_response)
            assert b"".join(answer) == b"well"
            answer.close()

    return requests


def _start_response(*told: object) -> Callable[[bytes], object]:
    """Take the status and the headers, which nobody reads."""
    return io.BytesIO().write


def _borrowing(wrapper: Any) -> Callable[[], None]:
    def work() -> None:
        for _ in range(IN_A_ROUND):
            backends.query(wrapper)
            wrapper.close()

    return work
