"""
Authentication for the API: OAuth login, discovery, bearer tokens, SCIM identity.

Paths and bodies are those that the unmodified databricks-sdk uses to log in.
"""

import base64
import binascii
import secrets
from typing import Any

from aiohttp import web

from django_lakebase.local import login_errors
from django_lakebase.local.faults import FaultRegistry
from django_lakebase.local.state.model import WorkspaceState, get_scim_id
from django_lakebase.local.tokens import Audience, Signer, TokenError

from .errors import ApiError

# Seconds.
API_TOKEN_TTL = 3600


class RequestAuthenticator:
    """Issues tokens for the API and identifies the caller of a request."""

    def __init__(
        self, state: WorkspaceState, signer: Signer, faults: FaultRegistry
    ) -> None:
        self._state, self._signer, self._faults = state, signer, faults

    def add_routes(self, app: web.Application) -> None:
        """Add the routes for login and identity to *app*."""
        add_get = app.router.add_get
        add_get("/.well-known/databricks-config", self._get_host_metadata)
        for path in ("oauth-authorization-server", "openid-configuration"):
            add_get(f"/oidc/.well-known/{path}", self._discover)
        app.router.add_post("/oidc/v1/token", self._issue_token)
        add_get("/api/2.0/preview/scim/v2/Me", self._get_me)

    def authenticate(self, request: web.Request) -> None:
        """Set ``request["identity"]``; raises ApiError if the caller has no access."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not token:
            text = "Credential was not sent or was of an unsupported type for this API."
            raise ApiError(401, "UNAUTHENTICATED", text)
        encoded, state = token.encode(errors="replace"), self._state
        for person, own in (
            (state.owner, state.owner_token),
            (state.developer, state.developer_token),
        ):
            if secrets.compare_digest(encoded, own.encode()):
                request["identity"] = person
                return
        invalid_token = ApiError(401, "UNAUTHENTICATED", "Invalid access token.")
        try:
            claims = self._signer.verify(Audience.WORKSPACE, token)
        except TokenError:
            raise invalid_token from None
        if self._faults.get("secret-revoked") is not None:
            raise invalid_token
        self._reject_api_token(claims.issued_at)
        request["identity"] = claims.subject
        if self._faults.get("no-workspace-access") is not None:
            text = (
                "This API is disabled for users without the workspace-access "
                "entitlement."
            )
            raise ApiError(403, "PERMISSION_DENIED", text)

    def find_identity(self, request: web.Request) -> str:
        """Return the caller of *request* or ``""``; does not check client secrets."""
        basic = _parse_basic(request)
        if basic is not None:
            return basic[0]
        _, _, token = request.headers.get("Authorization", "").partition(" ")
        try:
            return self._signer.verify(Audience.WORKSPACE, token).subject
        except TokenError:
            return ""

    def _reject_api_token(self, issued_at: float) -> None:
        """Raise ApiError if api-token-rejected applies to a token of *issued_at*."""
        fault = self._faults.get("api-token-rejected")
        if fault is not None and not 0 < float(fault["issued_before"]) <= issued_at:
            # The service sends the status, as a number, in place of an error code.
            text = login_errors.REJECTED_TOKEN_MESSAGES[str(fault["message"])]
            raise ApiError(403, 403, text)

    async def _get_host_metadata(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "oidc_endpoint": f"{request.url.origin()}/oidc",
                "workspace_id": self._state.workspace_id,
                "cloud": "AWS",
            }
        )

    async def _discover(self, request: web.Request) -> web.Response:
        base = f"{request.url.origin()}/oidc"
        return web.json_response(
            {
                "issuer": base,
                "authorization_endpoint": f"{base}/v1/authorize",
                "token_endpoint": f"{base}/v1/token",
            }
        )

    async def _issue_token(self, request: web.Request) -> web.Response:
        form = await request.post()
        client_login = _parse_basic(request) or (
            form.get("client_id"),
            form.get("client_secret"),
        )
        state = self._state
        is_valid = client_login == (state.client_id, state.client_secret)
        if not is_valid or self._faults.get("secret-revoked") is not None:
            body = {
                "error": "invalid_client",
                "error_description": "Client authentication failed",
            }
            return web.json_response(body, status=401)
        if form.get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        token, _ = self._signer.sign(Audience.WORKSPACE, state.client_id, API_TOKEN_TTL)
        return web.json_response(
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": API_TOKEN_TTL,
                "scope": "all-apis",
            }
        )

    async def _get_me(self, request: web.Request) -> web.Response:
        name = request["identity"]
        user: dict[str, Any] = {
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "id": get_scim_id(name),
            "userName": name,
            "displayName": name,
            "active": True,
            "groups": [
                {"display": group, "value": get_scim_id(group), "type": "direct"}
                for group in self._state.groups_of(name)
            ],
        }
        if "@" in name:
            user["emails"] = [{"type": "work", "value": name, "primary": True}]
            user["name"] = {"givenName": name.partition("@")[0], "familyName": ""}
        return web.json_response(user)


def _parse_basic(request: web.Request) -> tuple[str, str] | None:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return None
    try:
        name, _, secret = base64.b64decode(encoded).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return name, secret
