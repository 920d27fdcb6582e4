"""
Parsing and validation of request parameters.

The functions raise ApiError for an invalid value.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from .errors import ApiError, invalid, required

ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
# Role ids have at least four characters.
ROLE_ID = re.compile(r"[a-z][a-z0-9-]{3,62}")
DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
MAX_PAGE_SIZE = 100
DAY = 86400.0
# The service's bounds, in seconds.
SUSPEND_TIMEOUT_BOUNDS = (60.0, 7 * DAY)


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the JSON object in the body of *request*, or {} if the body is empty."""
    content = await request.text()
    if not content.strip():
        return {}
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        text = "Invalid JSON given in the body of the request - expected a map"
        raise ApiError(400, "MALFORMED_REQUEST", text)
    return body


def validate_id(field: str, value: str, pattern: re.Pattern[str] = ID) -> str:
    """Return *value* if it is a valid id."""
    if not value:
        raise required(field)
    if not pattern.fullmatch(value):
        raise invalid(
            f"Field {field} must match pattern ^{pattern.pattern}$, got '{value}'."
        )
    return value


def parse_duration(field: str, value: object, low: float, high: float) -> float:
    """Return the duration *value*, such as ``3600s``, in seconds (*low* to *high*)."""
    match = DURATION.fullmatch(str(value))
    if match is None:
        raise invalid(
            f"Field '{field}' must be a duration in seconds such as \"3600s\", got "
            f"'{value}'."
        )
    if not low <= float(match[1]) <= high:
        raise invalid(
            f"Field '{field}' must be between {low:.0f}s and {high:.0f}s, got "
            f"'{value}'."
        )
    return float(match[1])


def parse_timestamp(field: str, value: object) -> float:
    """Return the ISO 8601 timestamp *value* as a Unix timestamp."""
    try:
        timestamp = datetime.fromisoformat(str(value))
    except ValueError:
        raise invalid(f"Field '{field}' must be a timestamp, got '{value}'.") from None
    if timestamp.tzinfo is None:
        timestamp = timestamp.replace(tzinfo=UTC)
    return timestamp.timestamp()


def parse_bool(field: str, value: object) -> bool:
    """Return *value* if it is a boolean."""
    if not isinstance(value, bool):
        raise invalid(f"Field '{field}' must be true or false, got '{value}'.")
    return value


def parse_number(field: str, value: object, low: float, high: float) -> float:
    """Return *value* if it is a number from *low* to *high*."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"Field '{field}' must be a number, got '{value}'.")
    if not low <= value <= high:
        raise invalid(f"Field '{field}' must be between {low:g} and {high:g}.")
    return float(value)


async def read_spec(request: web.Request) -> dict[str, Any]:
    """Return the object *spec* in the body of *request*, or {} if it has none."""
    return (await read_json(request)).get("spec") or {}


async def read_masked_spec(request: web.Request) -> dict[str, Any]:
    """Return the fields of *spec* that are in the request's update mask."""
    spec = await read_spec(request)
    mask = request.query.get("update_mask", "")
    if not mask:
        raise required("update_mask")
    if mask == "*":
        return dict(spec)
    chosen: dict[str, Any] = {}
    for path in mask.split(","):
        # Protobuf writes field masks in JSON in camel case: spec.isProtected.
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


def paginate(request: web.Request, key: str, items: list[Any]) -> dict[str, Any]:
    """Return the requested page of *items* under *key*, and the next page's token."""
    try:
        size = int(request.query.get("page_size") or MAX_PAGE_SIZE)
    except ValueError:
        size = -1
    if size < 0:
        raise invalid("Field 'page_size' must be a number, 0 or greater.")
    size = min(size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
    start = 0
    token = request.query.get("page_token", "")
    if token:
        try:
            start = int(base64.urlsafe_b64decode(token).decode())
        except (binascii.Error, ValueError):
            raise invalid("Field 'page_token' is not valid.") from None
    end = start + size
    next_token = base64.urlsafe_b64encode(str(end).encode()).decode()
    has_more = end < len(items)
    return {key: items[start:end], "next_page_token": next_token if has_more else ""}


def wants_deleted(request: web.Request) -> bool:
    """Return whether *request* also lists deleted resources."""
    return request.query.get("show_deleted") == "true"


def wants_purge(request: web.Request) -> bool:
    """Return whether *request* deletes permanently."""
    return request.query.get("purge") == "true"


def parse_suspend_timeout(fields: Mapping[str, Any], default: float) -> float:
    """Return the suspend timeout of *fields* in seconds, 0 for never."""
    timeout = fields.get("suspend_timeout_duration")
    if fields.get("no_suspension"):
        if timeout is not None:
            raise invalid(
                "Only one of no_suspension and suspend_timeout_duration may be set."
            )
        return 0.0
    if timeout is None:
        return default
    return parse_duration(
        "spec.suspend_timeout_duration", timeout, *SUSPEND_TIMEOUT_BOUNDS
    )
