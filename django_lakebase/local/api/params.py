"""What the API says of a request that it refuses, and how a request is read."""

import base64
import binascii
import json
import re
import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

# Project, branch and endpoint ids, and those of roles and databases.
ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
SHORT_ID = re.compile(r"[a-z][a-z0-9-]{3,62}")
DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
LONGEST_PAGE = 100


class Problem(Exception):  # noqa: N818 - an answer, and not an error of ours.
    """A refusal, in the API's form."""

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
        """Return the body of the answer."""
        body: dict[str, Any] = {"error_code": self.code, "message": self.text}
        if self.details:
            body["details"] = self.details
        return body

    def response(self) -> web.Response:
        """Return the answer."""
        return web.json_response(self.body(), status=self.status)


def invalid(text: str) -> Problem:
    """Return the refusal of a parameter."""
    return Problem(400, "INVALID_PARAMETER_VALUE", text)


def bad_request(text: str) -> Problem:
    """Return the refusal of what may not be done."""
    return Problem(400, "BAD_REQUEST", text)


def exists(text: str) -> Problem:
    """Return the refusal of an id that is taken."""
    return Problem(409, "ALREADY_EXISTS", text)


def not_found(kind: str) -> Problem:
    """Return the refusal of a name that leads nowhere."""
    trace = secrets.token_hex(16)
    return Problem(404, "NOT_FOUND", f"{kind} id not found [TraceId: {trace}]")


def managed_by_parent(text: str) -> Problem:
    """Return the refusal to delete what only goes with its parent."""
    return Problem(
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


async def read_object(request: web.Request) -> dict[str, Any]:
    """Return the JSON object that *request* carries, empty where it has no body."""
    text = await request.text()
    if not text.strip():
        return {}
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        what = "Invalid JSON given in the body of the request - expected a map"
        raise Problem(400, "MALFORMED_REQUEST", what)
    return told


def checked_id(
    field: str, value: str, pattern: re.Pattern[str] = ID, *, shown: str = ""
) -> str:
    """Return *value* if it may be an id."""
    if not value:
        raise required(field)
    if not pattern.fullmatch(value):
        wanted = shown or f"^{pattern.pattern}$"
        raise invalid(f"Field {field} must match pattern {wanted}, got '{value}'.")
    return value


def required(field: str) -> Problem:
    """Return the refusal of a request that lacks *field*."""
    return invalid(
        f"Field '{field}' is required, expected non-default value (not \"\")!"
    )


def seconds(field: str, value: object, low: float, high: float) -> float:
    """Return the duration *value* (``3600s``) in seconds, from *low* to *high*."""
    found = DURATION.fullmatch(str(value))
    if found is None:
        raise invalid(
            f"Field '{field}' must be a duration in seconds such as \"3600s\", got "
            f"'{value}'."
        )
    if not low <= float(found[1]) <= high:
        raise invalid(
            f"Field '{field}' must be between {low:.0f}s and {high:.0f}s, got "
            f"'{value}'."
        )
    return float(found[1])


def moment(field: str, value: object) -> float:
    """Return the timestamp *value* in seconds since 1970."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        raise invalid(f"Field '{field}' must be a timestamp, got '{value}'.") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def is_true(field: str, value: object) -> bool:
    """Return the boolean *value*."""
    if not isinstance(value, bool):
        raise invalid(f"Field '{field}' must be true or false, got '{value}'.")
    return value


def number(field: str, value: object, low: float, high: float) -> float:
    """Return the number *value*, from *low* to *high*."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"Field '{field}' must be a number, got '{value}'.")
    if not low <= value <= high:
        raise invalid(f"Field '{field}' must be between {low:g} and {high:g}.")
    return float(value)


def masked(request: web.Request, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of *spec* that the request's update_mask names."""
    mask = request.query.get("update_mask", "")
    if not mask:
        raise required("update_mask")
    if mask == "*":
        return dict(spec)
    chosen: dict[str, Any] = {}
    for path in mask.split(","):
        # A mask in JSON has its words joined: spec.isProtected.
        snake = re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", path.strip())
        head, _, field = snake.partition(".")
        if head == "spec" and not field:
            chosen |= spec
        elif head == "spec":
            top = field.partition(".")[0]
            chosen[top] = spec.get(top)
        else:
            raise invalid(f"Field 'update_mask' names an unknown path: '{path}'.")
    return chosen


def page_of(request: web.Request, key: str, items: list[Any]) -> dict[str, Any]:
    """Return the page of *items* that *request* asks for, and the next one's token."""
    try:
        size = int(request.query.get("page_size") or LONGEST_PAGE)
    except ValueError:
        size = -1
    if size < 0:
        raise invalid("Field 'page_size' must be a number, 0 or above.")
    size = min(size or LONGEST_PAGE, LONGEST_PAGE)
    start = 0
    token = request.query.get("page_token", "")
    if token:
        try:
            start = int(base64.urlsafe_b64decode(token).decode())
        except (binascii.Error, ValueError):
            raise invalid("Field 'page_token' is not one of ours.") from None
    end = start + size
    following = base64.urlsafe_b64encode(str(end).encode()).decode()
    more = end < len(items)
    return {key: items[start:end], "next_page_token": following if more else ""}
