"""
The control plane: the HTTP API that the unmodified databricks-sdk logs in to.

What is under ``/_local/`` is our own: faults, counters, facts. It answers also while
the rest is made to fail.
"""

import asyncio
import base64
import binascii
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeAlias

from aiohttp import web

from .estate import Estate
from .faults import FaultError, Faults
from .gateway import Gateway
from .tokens import Kind, Signer, TokenError

CREDENTIALS = "/api/2.0/postgres/credentials"
# Seconds: the life of a token for the API.
API_TOKEN_LIFE = 3600
PUBLIC = ("/.well-known/", "/oidc/")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Answer: TypeAlias = web.StreamResponse


def problem(status: int, code: str, text: str) -> web.Response:
    """Return an error in the API's form."""
    body = {"error_code": code, "message": text}
    return web.json_response(body, status=status)


def _not_found(kind: str) -> web.Response:
    trace = secrets.token_hex(16)
    return problem(404, "NOT_FOUND", f"{kind} id not found [TraceId: {trace}]")


class Control:
    """The routes, over one estate."""

    def __init__(
        self,
        estate: Estate,
        signer: Signer,
        faults: Faults,
        gateway: Gateway,
        *,
        token_ttl: float,
    ) -> None:
        self._estate, self._signer, self._faults = estate, signer, faults
        self._gateway, self._token_ttl = gateway, token_ttl
        self._requests: Counter[str] = Counter()
        self._issued = 0
        self.facts: dict[str, Any] = {}

    def application(self) -> web.Application:
        """Return the web application."""
        app = web.Application(middlewares=[self._middleware])
        app.router.add_get("/.well-known/databricks-config", self._host_metadata)
        for path in ("oauth-authorization-server", "openid-configuration"):
            app.router.add_get(f"/oidc/.well-known/{path}", self._discovery)
        app.router.add_post("/oidc/v1/token", self._token)
        app.router.add_get("/api/2.0/preview/scim/v2/Me", self._me)
        app.router.add_post(CREDENTIALS, self._credentials)
        app.router.add_get("/api/2.0/postgres/{name:projects.*}", self._resource)
        app.router.add_get("/_local/faults", self._list_faults)
        app.router.add_put("/_local/faults/{name}", self._set_fault)
        app.router.add_delete("/_local/faults", self._clear_faults)
        app.router.add_delete("/_local/faults/{name}", self._clear_faults)
        app.router.add_get("/_local/counters", self._counters)
        app.router.add_delete("/_local/counters", self._reset_counters)
        app.router.add_get("/_local/facts", self._tell_facts)
        app.router.add_post("/_local/credentials", self._local_credentials)
        return app

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> Answer:
        if request.path.startswith("/_local/"):
            try:
                return await handler(request)
            except FaultError as exc:
                return problem(400, "INVALID_PARAMETER_VALUE", str(exc))
        self._requests[request.path] += 1
        failure = await self._fail(request)
        if failure is not None:
            return failure
        if request.path.startswith(PUBLIC):
            return await handler(request)
        refusal = self._authenticate(request)
        return refusal or await handler(request)

    async def _fail(self, request: web.Request) -> Answer | None:
        slow = self._faults.get("api-slow")
        if slow is not None and (slow["path"] == "all" or request.path == CREDENTIALS):
            await asyncio.sleep(float(slow["ms"]) / 1000)
        down = self._faults.get("api-down")
        if down is None:
            return None
        if down["mode"] == "503":
            return problem(503, "TEMPORARILY_UNAVAILABLE", "The service is down.")
        if down["mode"] == "hang":
            await self._faults.cleared("api-down")
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    def _authenticate(self, request: web.Request) -> web.Response | None:
        """Find who calls; return the refusal of a caller who may not."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            text = "Credential was not sent or was of an unsupported type for this API."
            return problem(401, "UNAUTHENTICATED", text)
        if secrets.compare_digest(token, self._estate.owner_token):
            request["identity"] = self._estate.owner
            return None
        try:
            claims = self._signer.read(Kind.WORKSPACE, token)
        except TokenError:
            return problem(401, "UNAUTHENTICATED", "Invalid access token.")
        if self._faults.get("secret-revoked") is not None:
            return problem(401, "UNAUTHENTICATED", "Invalid access token.")
        request["identity"] = claims.subject
        if self._faults.get("no-workspace-access") is None:
            return None
        text = (
            "This API is disabled for users without the workspace-access entitlement."
        )
        return problem(403, "PERMISSION_DENIED", text)

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
        return web.json_response(
            {
                "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
                "id": "1",
                "userName": name,
                "displayName": name,
                "active": True,
            }
        )

    # Postgres.

    async def _credentials(self, request: web.Request) -> Answer:
        body = await request.json()
        if body.get("endpoint") != self._estate.endpoint:
            return self._missing(str(body.get("endpoint", "")))
        if self._faults.get("empty-credential") is not None:
            return web.json_response({})
        life = self._token_ttl
        if "ttl" in body:
            life = min(life, float(str(body["ttl"]).removesuffix("s")))
        return web.json_response(self._issue(request["identity"], life))

    def _issue(self, subject: str, life: float) -> dict[str, str]:
        token, expires_at = self._signer.sign(Kind.DATABASE, subject, life)
        self._issued += 1
        shown = expires_at + self._faults.number("clock-skew", "seconds")
        moment = datetime.fromtimestamp(shown, UTC)
        return {"token": token, "expire_time": f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"}

    async def _resource(self, request: web.Request) -> Answer:
        estate = self._estate
        state = "IDLE" if self._gateway.is_suspended else "ACTIVE"
        endpoint = estate.as_endpoint(state)
        answers: dict[str, Any] = {
            "projects": {"projects": [estate.as_project()]},
            estate.project: estate.as_project(),
            f"{estate.project}/branches": {"branches": [estate.as_branch()]},
            estate.branch: estate.as_branch(),
            f"{estate.branch}/endpoints": {"endpoints": [endpoint]},
            estate.endpoint: endpoint,
        }
        name = request.match_info["name"].rstrip("/")
        if name in answers:
            return web.json_response(answers[name])
        return self._missing(name)

    def _missing(self, name: str) -> web.Response:
        """Return the 404 for *name*; its parents are looked at first."""
        estate = self._estate
        known = {"project": estate.project, "branch": estate.branch}
        for kind, parent in known.items():
            if not f"{name}/".startswith(f"{parent}/"):
                return _not_found(kind)
        return _not_found("endpoint")

    # Our own.

    async def _list_faults(self, _: web.Request) -> Answer:
        return web.json_response(self._faults.listed())

    async def _set_fault(self, request: web.Request) -> Answer:
        name = request.match_info["name"]
        given = await request.json() if request.can_read_body else {}
        await self.set_fault(name, given)
        return web.json_response(self._faults.listed())

    async def set_fault(self, name: str, given: dict[str, Any]) -> None:
        """Switch a fault on, and do what it does at once."""
        self._faults.set(name, given)
        if name == "suspend":
            await self._gateway.suspend()
        elif name == "cut":
            await self._gateway.cut(str(given.get("which", "all")))

    async def _clear_faults(self, request: web.Request) -> Answer:
        self._faults.clear(request.match_info.get("name"))
        return web.json_response(self._faults.listed())

    async def _counters(self, _: web.Request) -> Answer:
        counters = self._gateway.counters
        return web.json_response(
            {
                "requests": dict(self._requests),
                "credentials_issued": self._issued,
                "logins": counters.logins,
                "refusals": counters.refusals,
                "open_connections": len(self._gateway.links),
            }
        )

    async def _reset_counters(self, request: web.Request) -> Answer:
        self._requests.clear()
        self._issued = 0
        self._gateway.counters.reset()
        return await self._counters(request)

    async def _tell_facts(self, _: web.Request) -> Answer:
        return web.json_response(self.facts)

    async def _local_credentials(self, request: web.Request) -> Answer:
        body = await request.json()
        life = float(body.get("ttl", self._token_ttl))
        subject = str(body.get("user", self._estate.client_id))
        token, expires_at = self._signer.sign(Kind.DATABASE, subject, life)
        left = expires_at - time.time()
        return web.json_response({"token": token, "seconds": left})


def _basic(request: web.Request) -> tuple[str, str] | None:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return None
    try:
        name, _, secret = base64.b64decode(encoded).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name, secret
