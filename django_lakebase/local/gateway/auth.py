"""
Authentication of logins: the checks, in the order of the service's layers.

This module does no I/O; a refusal is an exception.
"""

import asyncio
import contextlib
import time

from django_lakebase.local.faults.registry import FaultRegistry
from django_lakebase.local.state.model import EndpointRef, WorkspaceState
from django_lakebase.local.tokens import EXPIRED, Audience, Signer, TokenError

from . import messages
from .messages import Dialect
from .wire import ErrorResponse

# Seconds that an endpoint takes to wake after it was suspended for being idle.
WAKE_TIME = 0.2


class LoginRefusedError(Exception):
    """A login was refused; the argument is what the client is told."""

    def __init__(self, refusal: ErrorResponse) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class LoginAuthenticator:
    """Checks logins to the endpoints of one workspace."""

    def __init__(
        self,
        state: WorkspaceState,
        signer: Signer,
        faults: FaultRegistry,
        dialect: Dialect,
    ) -> None:
        self._state, self._signer = state, signer
        self._faults, self._dialect = faults, dialect
        self._wakes_at: dict[str, float] = {}

    def find_endpoint(self, host: str) -> EndpointRef:
        """Return the endpoint with the name *host*; raises LoginRefusedError."""
        if not host:
            raise LoginRefusedError(messages.no_sni())
        ref = self._state.resolve_host(host)
        if ref is None:
            raise LoginRefusedError(messages.endpoint_not_found())
        return ref

    async def authorize(self, ref: EndpointRef, session_count: int) -> None:
        """
        Check that *ref* accepts a login in addition to *session_count* sessions.

        Raises LoginRefusedError.
        """
        blocked = self._faults.get("ip-blocked")
        if blocked is not None and blocked["where"] != "api":
            detail = messages.ip_blocked(self._state.workspace_id)
            raise LoginRefusedError(messages.not_authorized(detail))
        if not _accepts_logins(ref):
            raise LoginRefusedError(messages.not_authorized())
        if ref.endpoint.is_disabled:
            raise LoginRefusedError(messages.endpoint_disabled())
        if ref.endpoint.is_suspended:
            await self._wake(ref)
        if self._faults.get("starting") is not None:
            raise LoginRefusedError(messages.starting_up())
        limit = self._faults.get("too-many-connections")
        if limit is not None and session_count >= float(limit["limit"]):
            raise LoginRefusedError(messages.too_many_connections())

    def check_token(
        self, user: str, token: str, *, exists: bool, identity_type: str
    ) -> None:
        """
        Check that *token* may log in as the role *user*; raises LoginRefusedError.

        *identity_type* is empty for a role that takes no tokens. The role of a group
        takes the tokens of the group's members.
        """
        dialect = self._dialect
        try:
            claims = self._signer.verify(Audience.DATABASE, token)
        except TokenError as exc:
            raise LoginRefusedError(dialect.bad_token(user, str(exc))) from None
        refusal = self._faults.refuse_login(user, claims.issued_at)
        lifetime = self._faults.get_number("token-life", "seconds")
        if refusal is None and lifetime and time.time() > claims.issued_at + lifetime:
            text = f"{EXPIRED} (exp={int(claims.issued_at + lifetime)})"
            refusal = dialect.bad_token(user, text)
        if refusal is None and not exists:
            refusal = dialect.no_role(user)
        names = [claims.subject]
        if identity_type == "GROUP":
            names = self._state.groups_of(claims.subject)
        if refusal is None and (user not in names or not identity_type):
            refusal = dialect.wrong_identity(user)
        if refusal is not None:
            raise LoginRefusedError(refusal)

    def suspend(self, ref: EndpointRef) -> None:
        """Have the next login wait until the endpoint of *ref* is awake."""
        ref.endpoint.is_suspended = True
        self._wakes_at.pop(ref.endpoint.uid, None)

    async def _wake(self, ref: EndpointRef) -> None:
        """Hold a login until the endpoint is awake, as the service does."""
        endpoint, loop = ref.endpoint, asyncio.get_running_loop()
        options = self._faults.get("suspend")
        seconds = WAKE_TIME if options is None else float(options["wake"])
        wakes_at = self._wakes_at.setdefault(endpoint.uid, loop.time() + seconds)
        left = wakes_at - loop.time()
        if options is None:
            await asyncio.sleep(left)
        elif left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._faults.wait_until_cleared("suspend")
        endpoint.is_suspended = False
        self._wakes_at.pop(endpoint.uid, None)
        self._faults.clear("suspend")


def _accepts_logins(ref: EndpointRef) -> bool:
    endpoint, branch = ref.endpoint, ref.branch
    if endpoint.is_read_write and ref.is_read_only and not endpoint.has_secondaries:
        return False
    return branch.current_state == "READY" and time.time() >= branch.accepts_logins_at
