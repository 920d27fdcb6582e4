"""Test clients whose requests look as if the platform's proxy had forwarded them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.http.request import HttpHeaders
from django.test import AsyncClient, Client

from . import PLATFORM_VARIABLES


class _SignsIn:
    """Stores the headers that the proxy adds to each request."""

    _headers: dict[str, str] = {}

    def sign_in(self, email: str, *, name: str = "", user_id: str = "1@1") -> None:
        """Send the headers of this user with each request from now on."""
        self._headers = {
            "X-Forwarded-Email": email,
            "X-Forwarded-Preferred-Username": name or email,
            "X-Forwarded-User": user_id,
        }

    def sign_out(self) -> None:
        """Send no header of a user from now on."""
        self._headers = {}


class AppClient(_SignsIn, Client):
    """A test client that signs a user in as the proxy does."""

    def request(self, **request: Any) -> Any:
        """Make the request as the proxy forwards it."""
        # Servers decode the bytes of a header as Latin-1.
        headers = {n: v.encode().decode("latin-1") for n, v in self._headers.items()}
        with _on_platform():
            # As the proxy, this replaces what the caller sends in these headers.
            return super().request(**request | HttpHeaders.to_wsgi_names(headers))


class AsyncAppClient(_SignsIn, AsyncClient):
    """An async test client that signs a user in as the proxy does."""

    async def request(self, **request: Any) -> Any:
        """Make the request as the proxy forwards it."""
        headers = [(n.lower().encode(), v.encode()) for n, v in self._headers.items()]
        sent = {name for name, _ in headers}
        kept = [header for header in request["headers"] if header[0] not in sent]
        request["headers"] = [*kept, *headers]
        with _on_platform():
            return await super().request(**request)


@contextmanager
def _on_platform() -> Iterator[None]:
    """Set the platform's variables for a block."""
    missing = [name for name in PLATFORM_VARIABLES if not os.environ.get(name)]
    os.environ.update(dict.fromkeys(missing, "1"))
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
