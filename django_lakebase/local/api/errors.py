"""The errors of the API, in the service's format."""

import secrets
import uuid
from typing import Any

from aiohttp import web


class ApiError(Exception):
    """An error response of the API."""

    def __init__(
        self,
        status: int,
        code: str | int,
        text: str,
        details: list[Any] | None = None,
    ) -> None:
        super().__init__(text)
        self.status, self.code, self.text, self.details = status, code, text, details

    def body(self) -> dict[str, Any]:
        """Return the JSON of the response body."""
        body: dict[str, Any] = {"error_code": self.code, "message": self.text}
        if self.details:
            body["details"] = self.details
        return body

    def response(self) -> web.Response:
        """Return the response."""
        return web.json_response(self.body(), status=self.status)


def invalid(text: str) -> ApiError:
    """Return the error for an invalid parameter."""
    return ApiError(400, "INVALID_PARAMETER_VALUE", text)


def bad_request(text: str) -> ApiError:
    """Return the error for a request that is not allowed."""
    return ApiError(400, "BAD_REQUEST", text)


def already_exists(text: str) -> ApiError:
    """Return the error for an id that is already in use."""
    return ApiError(409, "ALREADY_EXISTS", text)


def not_found(kind: str) -> ApiError:
    """Return the error for a resource that does not exist; *kind* is its type."""
    trace = secrets.token_hex(16)
    return ApiError(404, "NOT_FOUND", f"{kind} id not found [TraceId: {trace}]")


def managed_by_parent(text: str) -> ApiError:
    """Return the error for a resource that is deleted only with its parent."""
    return ApiError(
        400,
        "BAD_REQUEST",
        text,
        [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "domain": "databricks.com",
                "reason": "RESOURCE_CONFLICT",
                "metadata": {"declarative_context": "MANAGED_BY_PARENT"},
            },
            {
                "@type": "type.googleapis.com/google.rpc.RequestInfo",
                "request_id": str(uuid.uuid4()),
                "serving_data": "",
            },
        ],
    )


def required(field: str) -> ApiError:
    """Return the error for a missing *field*."""
    return invalid(
        f"Field '{field}' is required, expected non-default value (not \"\")!"
    )


def no_such_api(request: web.Request) -> ApiError:
    """Return the error for a method and path that no handler serves."""
    text = f"No API found for '{request.method} {request.path.removeprefix('/api')}'"
    return ApiError(404, "ENDPOINT_NOT_FOUND", text)
