"""Handler for database credentials."""

import time
from typing import Any

from aiohttp import web

from django_lakebase.local.faults import FaultRegistry
from django_lakebase.local.tokens import Audience, Signer

from .errors import invalid, required
from .operations import Json
from .params import parse_duration, parse_timestamp, read_json
from .resources import Resources
from .serializers import format_timestamp

# Seconds.
TTL_BOUNDS = (300.0, 3600.0)


class CredentialHandlers:
    """
    Issues database tokens.

    *token_ttl* is the lifetime of a credential in seconds, which a request can shorten.
    """

    def __init__(
        self,
        resources: Resources,
        signer: Signer,
        faults: FaultRegistry,
        *,
        token_ttl: float,
    ) -> None:
        self._resources, self._signer, self._faults = resources, signer, faults
        self._token_ttl = token_ttl
        self.issued = 0

    async def create(self, request: web.Request) -> Json:
        """Return a token for the endpoint in the body."""
        body = await read_json(request)
        name = str(body.get("endpoint") or "")
        if not name:
            raise required("endpoint")
        ref = self._resources.find_endpoint_by_name(name)
        if self._faults.get("empty-credential") is not None:
            return {}
        ttl = self._get_ttl(body)
        extra = {"endpoint": ref.name}
        if body.get("claims"):
            extra["claims"] = body["claims"]
        identity = request["identity"]
        token, expires_at = self._signer.sign(Audience.DATABASE, identity, ttl, extra)
        self.issued += 1
        expire_time = expires_at + self._faults.get_number("clock-skew", "seconds")
        return {"token": token, "expire_time": format_timestamp(expire_time)}

    def _get_ttl(self, body: dict[str, Any]) -> float:
        """Return the lifetime of the requested credential in seconds."""
        ttl, expire_time = body.get("ttl"), body.get("expire_time")
        if ttl is not None and expire_time is not None:
            raise invalid("Only one of ttl and expire_time may be set.")
        lifetime = self._token_ttl
        if ttl is not None:
            lifetime = min(lifetime, parse_duration("ttl", ttl, *TTL_BOUNDS))
        if expire_time is not None:
            left = parse_timestamp("expire_time", expire_time) - time.time()
            if not 0 < left <= TTL_BOUNDS[1] + 1:
                raise invalid(
                    "Field 'expire_time' must be in the future, by an hour at most."
                )
            lifetime = min(lifetime, left)
        return lifetime
