"""
The control plane: the HTTP API that the unmodified databricks-sdk logs in to.

What is under ``/_local/`` is our own and answers also while the rest is made to fail.
"""

import asyncio
import base64
import binascii
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aiohttp import web

from django_lakebase.local.faults.registry import FaultError, Faults, Value
from django_lakebase.local.gateway import messages
from django_lakebase.local.postgres.admin import SqlError
from django_lakebase.local.state.model import Estate, endpoint_name
from django_lakebase.local.tokens import Kind, Signer, TokenError

from . import params, serializers
from .params import Problem, invalid, read_object, required
from .rate_limit import Limits
from .resources import Tree
from .urls import PREFIX, Routes, no_api

CREDENTIALS = PREFIX + "credentials"
# Seconds: the life of a token for the API, and the bounds of a credential's.
API_TOKEN_LIFE = 3600
TTL_BOUNDS = (300.0, 3600.0)
PUBLIC = ("/.well-known/", "/oidc/")
MALFORMED = {
    "html": ("text/html", "<html><title>Sign in</title><body>Sign in</body></html>"),
    "text": ("text/plain", "upstream connect error or disconnect/reset"),
    "list": ("application/json", "[]"),
    "cut-off": ("application/json", '{"token": "eyJ'),
    "nothing": ("application/json", ""),
}

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer: TypeAlias = web.StreamResponse


class Control:
    """
    The API, over one estate.

    *token_ttl* is the life of a credential in seconds, unless a request asks for less.
    """

    def __init__(
        self,
        estate: Estate,
        signer: Signer,
        faults: Faults,
        tree: Tree,
        routes: Routes,
        *,
        token_ttl: float,
    ) -> None:
        self._estate, self._signer, self._faults = estate, signer, faults
        self._tree, self._routes = tree, routes
        self._token_ttl = token_ttl
        self._limits = Limits()
        self.requests: Counter[str] = Counter()
        self.issued = 0

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application(middlewares=[self._middleware])
        app.router.add_get("/.well-known/databricks-config", self._host_metadata)
        for path in ("oauth-authorization-server", "openid-configuration"):
            app.router.add_get(f"/oidc/.well-known/{path}", self._discovery)
        app.router.add_post("/oidc/v1/token", self._token)
        app.router.add_get("/api/2.0/preview/scim/v2/Me", self._me)
        app.router.add_post(CREDENTIALS, self._credentials)
        app.router.add_route("*", PREFIX + "{name:projects.*}", self._resource)
        return app

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> Answer:
        try:
            return await self._answered(request, handler)
        except ConnectionResetError:
            # The client has gone in the midst of its request: nobody hears us.
            return _reset(request)

    async def _answered(self, request: web.Request, handler: Handler) -> Answer:
        try:
            if request.path.startswith("/_local/"):
                return await handler(request)
            self.requests[request.path] += 1
            failure = await self._fail(request)
            if failure is not None:
                return failure
            if not request.path.startswith(PUBLIC):
                self._authenticate(request)
            return await handler(request)
        except Problem as exc:
            return exc.response()
        except (FaultError, SqlError) as exc:
            return invalid(str(exc)).response()
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            return no_api(request).response()

    async def _fail(self, request: web.Request) -> Answer | None:
        """Misbehave as the faults say; return what is answered instead, if anything."""
        if await self._is_silent(request):
            return _reset(request)
        blocked = self._faults.get("ip-blocked")
        if blocked is not None and blocked["where"] != "login":
            text = messages.ip_blocked(self._estate.workspace_id)
            raise Problem(403, "PERMISSION_DENIED", text)
        for name, misbehave in _MISBEHAVIOURS.items():
            settings = self._faults.get(name)
            if settings is None or not _concerns(settings, request):
                continue
            if not self._is_within_limit(settings, request):
                return misbehave(self._faults.takes(name) or settings)
        return None

    def _is_within_limit(
        self, settings: dict[str, Value], request: web.Request
    ) -> bool:
        rate = float(settings.get("per_second", 0.0))
        return rate > 0 and self._limits.let_through(self._principal(request), rate)

    def _principal(self, request: web.Request) -> str:
        basic = _basic(request)
        if basic is not None:
            return basic[0]
        _, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            return self._signer.read(Kind.WORKSPACE, token).subject
        except TokenError:
            return ""

    async def _is_silent(self, request: web.Request) -> bool:
        """Wait as the faults say; return whether there is to be no answer at all."""
        slow = self._faults.get("api-slow")
        if slow is not None and _concerns(slow, request):
            await asyncio.sleep(float(slow["ms"]) / 1000)
        if self._faults.get("api-silent") is not None:
            await self._faults.cleared("api-silent")
            return True
        return self._faults.get("api-down") is not None

    def _authenticate(self, request: web.Request) -> None:
        """Find who calls; raises Problem for a caller who may not."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            text = "Credential was not sent or was of an unsupported type for this API."
            raise Problem(401, "UNAUTHENTICATED", text)
        given = token.encode(errors="replace")
        if secrets.compare_digest(given, self._estate.owner_token.encode()):
            request["identity"] = self._estate.owner
            return
        unaccepted = Problem(401, "UNAUTHENTICATED", "Invalid access token.")
        try:
            claims = self._signer.read(Kind.WORKSPACE, token)
        except TokenError:
            raise unaccepted from None
        if self._faults.get("secret-revoked") is not None:
            raise unaccepted
        self._refuse_dead(claims.issued_at)
        request["identity"] = claims.subject
        if self._faults.get("no-workspace-access") is not None:
            text = (
                "This API is disabled for users without the workspace-access "
                "entitlement."
            )
            raise Problem(403, "PERMISSION_DENIED", text)

    def _refuse_dead(self, issued_at: float) -> None:
        """Refuse a token with 403 as the fault says; raises Problem."""
        dead = self._faults.get("dead-token")
        if dead is not None and not 0 < float(dead["before"]) <= issued_at:
            # The service answers with the status as the code, and as a number.
            raise Problem(403, 403, messages.DEAD_TOKEN[str(dead["text"])])

    # Login and identity.

    async def _host_metadata(self, request: web.Request) -> Answer:
        return web.json_response(
            {
                "oidc_endpoint": f"{request.url.origin()}/oidc",
                "workspace_id": self._estate.workspace_id,
                "cloud": "AWS",
            }
        )

    async def _discovery(self, request: web.Request) -> Answer:
        base = f"{request.url.origin()}/oidc"
        return web.json_response(
            {
                "issuer": base,
                "authorization_endpoint": f"{base}/v1/authorize",
                "token_endpoint": f"{base}/v1/token",
            }
        )

    async def _token(self, request: web.Request) -> Answer:
        form = await request.post()
        given = _basic(request) or (form.get("client_id"), form.get("client_secret"))
        estate = self._estate
        is_right = given == (estate.client_id, estate.client_secret)
        if not is_right or self._faults.get("secret-revoked") is not None:
            body = {
                "error": "invalid_client",
                "error_description": "Client authentication failed",
            }
            return web.json_response(body, status=401)
        if form.get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        token, _ = self._signer.sign(Kind.WORKSPACE, estate.client_id, API_TOKEN_LIFE)
        return web.json_response(
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": API_TOKEN_LIFE,
                "scope": "all-apis",
            }
        )

    async def _me(self, request: web.Request) -> Answer:
        name = request["identity"]
        shown: dict[str, Any] = {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": str(abs(hash(name)) % 10**12),
            "userName": name,
            "displayName": name,
            "active": True,
            "groups": [
                {"display": group, "value": str(number), "type": "direct"}
                for number, group in enumerate(self._estate.groups_of(name), start=1)
            ],
        }
        if "@" in name:
            shown["emails"] = [{"type": "work", "value": name, "primary": True}]
            shown["name"] = {"givenName": name.partition("@")[0], "familyName": ""}
        return web.json_response(shown)

    # Postgres.

    async def _resource(self, request: web.Request) -> Answer:
        return web.json_response(await self._routes.answer(request))

    async def _credentials(self, request: web.Request) -> Answer:
        body = await read_object(request)
        name = str(body.get("endpoint") or "")
        if not name:
            raise required("endpoint")
        place = self._tree.place(name)
        if self._faults.get("empty-credential") is not None:
            return web.json_response({})
        life = self._life(body)
        extra = {"endpoint": endpoint_name(place)}
        if body.get("claims"):
            extra["claims"] = body["claims"]
        identity = request["identity"]
        token, expires_at = self._signer.sign(Kind.DATABASE, identity, life, extra)
        self.issued += 1
        shown = expires_at + self._faults.number("clock-skew", "seconds")
        return web.json_response(
            {"token": token, "expire_time": serializers.moment(shown)}
        )

    def _life(self, body: dict[str, Any]) -> float:
        """Return how many seconds a credential is to live."""
        ttl, expire_time = body.get("ttl"), body.get("expire_time")
        if ttl is not None and expire_time is not None:
            raise invalid("Only one of ttl and expire_time may be set.")
        life = self._token_ttl
        if ttl is not None:
            life = min(life, params.seconds("ttl", ttl, *TTL_BOUNDS))
        if expire_time is not None:
            left = params.moment("expire_time", expire_time) - time.time()
            if not 0 < left <= TTL_BOUNDS[1] + 1:
                raise invalid(
                    "Field 'expire_time' must be in the future, and an hour at most."
                )
            life = min(life, left)
        return life


def _concerns(settings: dict[str, Value], request: web.Request) -> bool:
    return settings["path"] == "all" or request.path == CREDENTIALS


def _reset(request: web.Request) -> Answer:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=503)


def _throttle(settings: dict[str, Value]) -> Answer:
    answer = Problem(429, "REQUEST_LIMIT_EXCEEDED", "Too many requests.").response()
    answer.headers["Retry-After"] = f"{float(settings['retry_after']):.0f}"
    return answer


def _break(settings: dict[str, Value]) -> Answer:
    status = int(float(settings["status"]))
    code = {503: "TEMPORARILY_UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}.get(status)
    return Problem(status, code or "INTERNAL_ERROR", "The service is down.").response()


def _garble(settings: dict[str, Value]) -> Answer:
    kind, text = MALFORMED[str(settings["shape"])]
    return web.Response(text=text, content_type=kind)


_MISBEHAVIOURS = {"api-429": _throttle, "api-5xx": _break, "api-malformed": _garble}


def _basic(request: web.Request) -> tuple[str, str] | None:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return None
    try:
        name, _, secret = base64.b64decode(encoded).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name, secret
