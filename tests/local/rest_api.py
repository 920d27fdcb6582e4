"""A client of the emulator's REST API that sends plain HTTP, without the SDK."""

import json
import time
import urllib.error
import urllib.request
from email.message import Message
from typing import Any

# Seconds.
REQUEST_TIMEOUT, OPERATION_TIMEOUT = 20.0, 60.0


class ApiError(Exception):
    """The API rejected a request, or an operation failed."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body.get("message", ""))
        self.status, self.body, self.code = status, body, body.get("error_code")


class RestApi:
    """The REST API at *url*, called with the bearer token *token*."""

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url, token

    def send(
        self, method: str, path: str, body: object = None
    ) -> tuple[int, Message, str]:
        """
        Send one request; return its status, headers and text.

        Bytes in *body* are sent unchanged, everything else as JSON.
        """
        data = body if body is None or isinstance(body, bytes) else _encode(body)
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(
            f"{self.url}{path}", data, headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT) as response:
                return response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.headers, exc.read().decode()

    def request(self, method: str, name: str, body: object = None) -> dict[str, Any]:
        """Call the resource *name* and return the parsed body; raises ApiError."""
        status, _, text = self.send(method, f"/api/2.0/postgres/{name}", body)
        parsed: dict[str, Any] = json.loads(text)
        if status != 200:
            raise ApiError(status, parsed)
        return parsed

    def run_operation(self, method: str, name: str, body: object = None) -> Any:
        """Start an operation, poll it until it is done and return its response."""
        started = self.request(method, name, body)
        assert started["done"] is False
        deadline = time.monotonic() + OPERATION_TIMEOUT
        while True:
            operation = self.request("GET", started["name"])
            if operation["done"]:
                break
            assert time.monotonic() < deadline
        if "error" in operation:
            raise ApiError(200, operation["error"])
        return operation["response"]

    def exists(self, name: str) -> bool:
        """Return whether the API knows the resource *name*."""
        try:
            self.request("GET", name)
        except ApiError as exc:
            return exc.code != "NOT_FOUND"
        return True


def _encode(body: object) -> bytes:
    return json.dumps(body).encode()
