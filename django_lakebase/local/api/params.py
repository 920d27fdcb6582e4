"""The parameters of a request: parsed and validated."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from .errors import ApiError, invalid, required

# Project, branch and endpoint ids, and those of roles and databases.
ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
SHORT_ID = re.compile(r"[a-z][a-z0-9-]{3,62}")
DURATION = re.compile(r"(\d+(?:\.\d+)?)s")
MAX_PAGE_SIZE = 100
DAY = 86400.0
# Seconds: the service's bounds.
SUSPEND_TIMEOUT_BOUNDS = (60.0, 7 * DAY)


async def read_json(request: web.Request) -> dict[str, Any]:
    """Return the JSON object that *request* carries, empty where it has no body."""
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


def validate_id(
    field: str, value: str, pattern: re.Pattern[str] = ID, *, shown: str = ""
) -> str:
    """Return *value* if it may be an id."""
    if not value:
        raise required(field)
    if not pattern.fullmatch(value):
        wanted = shown or f"^{pattern.pattern}$"
        raise invalid(f"Field {field} must match pattern {wanted}, got '{value}'.")
    return value


def parse_duration(field: str, value: object, low: float, high: float) -> float:
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


def parse_timestamp(field: str, value: object) -> float:
    """Return the timestamp *value* in seconds since 1970."""
    try:
        when = datetime.fromisoformat(str(value))
    except ValueError:
        raise invalid(f"Field '{field}' must be a timestamp, got '{value}'.") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def parse_bool(field: str, value: object) -> bool:
    """Return the boolean *value*."""
    if not isinstance(value, bool):
        raise invalid(f"Field '{field}' must be true or false, got '{value}'.")
    return value


def parse_number(field: str, value: object, low: float, high: float) -> float:
    """Return the number *value*, from *low* to *high*."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"Field '{field}' must be a number, got '{value}'.")
    if not low <= value <= high:
        raise invalid(f"Field '{field}' must be between {low:g} and {high:g}.")
    return float(value)


def select_masked_fields(
    request: web.Request, spec: Mapping[str, Any]
) -> dict[str, Any]:
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


def paginate(request: web.Request, key: str, items: list[Any]) -> dict[str, Any]:
    """Return the page of *items* that *request* asks for, and the next one's token."""
    try:
        size = int(request.query.get("page_size") or MAX_PAGE_SIZE)
    except ValueError:
        size = -1
    if size < 0:
        raise invalid("Field 'page_size' must be a number, 0 or above.")
    size = min(size or MAX_PAGE_SIZE, MAX_PAGE_SIZE)
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


def wants_deleted(request: web.Request) -> bool:
    """Return whether *request* asks for what is deleted too."""
    return request.query.get("show_deleted") == "true"


def wants_purge(request: web.Request) -> bool:
    """Return whether *request* deletes for good."""
    return request.query.get("purge") == "true"


def parse_suspend_timeout(fields: Mapping[str, Any], default: float) -> float:
    """Return the seconds after which *fields* suspend an endpoint, 0 for never."""
    given = fields.get("suspend_timeout_duration")
    if fields.get("no_suspension"):
        if given is not None:
            raise invalid(
                "Only one of no_suspension and suspend_timeout_duration may be set."
            )
        return 0.0
    if given is None:
        return default
    return parse_duration(
        "spec.suspend_timeout_duration", given, *SUSPEND_TIMEOUT_BOUNDS
    )
