"""Handler for the list of client secrets of a service principal."""

import time

from aiohttp import web

from django_lakebase.local.faults import FaultRegistry
from django_lakebase.local.state.model import WorkspaceState, get_scim_id

from .errors import ApiError, not_found
from .operations import Json
from .serializers import format_timestamp

# Seconds.
DAY = 86400.0
# The service's default lifetime of a client secret.
LIFETIME = 730 * DAY


class ClientSecretHandlers:
    """Lists the client secret, for the service principal itself and the owner."""

    def __init__(self, state: WorkspaceState, faults: FaultRegistry) -> None:
        self._state, self._faults = state, faults

    async def list_all(self, request: web.Request) -> Json:
        """Return the secrets of the service principal with the SCIM id in the path."""
        state = self._state
        is_allowed = request["identity"] in (state.owner, state.client_id)
        if not is_allowed or self._faults.get("no-secret-access") is not None:
            text = "You do not have permission to list the service principal's secrets."
            raise ApiError(403, "PERMISSION_DENIED", text)
        if request.match_info["id"] != get_scim_id(state.client_id):
            raise not_found("service principal")
        created_at = state.client_secret_created_at
        fault = self._faults.get("secret-expires")
        expires_at = created_at + LIFETIME
        if fault is not None:
            expires_at = time.time() + float(fault["days"]) * DAY
        secret = {
            "id": state.client_secret_id,
            "create_time": format_timestamp(created_at),
            "update_time": format_timestamp(created_at),
            "expire_time": format_timestamp(expires_at),
            "status": "ACTIVE",
        }
        return {"secrets": [secret]}
