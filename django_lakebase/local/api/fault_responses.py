"""Failures and delays of the API while faults are on."""

import asyncio
import time
from collections.abc import Callable, Mapping

from aiohttp import web

from django_lakebase.local import login_errors
from django_lakebase.local.faults import FaultRegistry, Value

from .errors import ApiError
from .urls import CREDENTIALS

MALFORMED = {
    "html": ("text/html", "<html><title>Sign in</title><body>Sign in</body></html>"),
    "text": ("text/plain", "upstream connect error or disconnect/reset"),
    "list": ("application/json", "[]"),
    "truncated": ("application/json", '{"token": "eyJ'),
    "empty": ("application/json", ""),
}


class FaultInjector:
    """
    Responds in place of the API while a fault is on.

    *find_identity* returns the caller of a request.
    """

    def __init__(
        self,
        faults: FaultRegistry,
        find_identity: Callable[[web.Request], str],
        workspace_id: str,
    ) -> None:
        self._faults, self._find_identity = faults, find_identity
        self._workspace_id = workspace_id
        self._rate_limiter = RateLimiter()

    async def respond(self, request: web.Request) -> web.Response | None:
        """Return the response of a fault, or None if none applies; raises ApiError."""
        if await self._is_dropped(request):
            return reset(request)
        blocked = self._faults.get("ip-blocked")
        if blocked is not None and blocked["scope"] != "login":
            text = login_errors.ip_blocked(self._workspace_id)
            raise ApiError(403, "PERMISSION_DENIED", text)
        for name, respond in _RESPONSES.items():
            options = self._faults.get(name)
            if options is None or not _applies(options, request):
                continue
            if not self._is_within_limit(options, request):
                return respond(self._faults.consume(name) or options)
        return None

    def _is_within_limit(
        self, options: Mapping[str, Value], request: web.Request
    ) -> bool:
        rate = float(options.get("allowed_per_second", 0.0))
        return rate > 0 and self._rate_limiter.allow(self._find_identity(request), rate)

    async def _is_dropped(self, request: web.Request) -> bool:
        """Delay the request if a fault says so; return whether to send no response."""
        slow = self._faults.get("api-slow")
        if slow is not None and _applies(slow, request):
            await asyncio.sleep(float(slow["ms"]) / 1000)
        if self._faults.get("api-hang") is not None:
            await self._faults.wait_until_cleared("api-hang")
            return True
        return self._faults.get("api-down") is not None


class RateLimiter:
    """A token bucket for each identity, which holds one second's requests at most."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._buckets: dict[str, tuple[float, float]] = {}

    def allow(self, identity: str, per_second: float) -> bool:
        """Return whether *identity* may send a request now; if so, count it."""
        now, capacity = self._now(), max(1.0, per_second)
        tokens, filled_at = self._buckets.get(identity, (capacity, now))
        tokens = min(capacity, tokens + (now - filled_at) * per_second)
        is_enough = tokens >= 1
        self._buckets[identity] = tokens - is_enough, now
        return is_enough


def reset(request: web.Request) -> web.Response:
    """Reset the connection of *request*; the returned response is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


def _applies(options: Mapping[str, Value], request: web.Request) -> bool:
    return options["scope"] == "all" or request.path == CREDENTIALS


def _throttle(options: Mapping[str, Value]) -> web.Response:
    response = ApiError(429, "REQUEST_LIMIT_EXCEEDED", "Too many requests.").response()
    response.headers["Retry-After"] = f"{float(options['retry_after']):.0f}"
    return response


def _fail(options: Mapping[str, Value]) -> web.Response:
    status = int(float(options["status"]))
    code = {503: "TEMPORARILY_UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}.get(status)
    return ApiError(status, code or "INTERNAL_ERROR", "The service is down.").response()


def _respond_malformed(options: Mapping[str, Value]) -> web.Response:
    content_type, text = MALFORMED[str(options["body"])]
    return web.Response(text=text, content_type=content_type)


_RESPONSES = {
    "api-429": _throttle,
    "api-5xx": _fail,
    "api-malformed": _respond_malformed,
}
