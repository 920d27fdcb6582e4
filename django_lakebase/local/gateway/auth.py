"""
The checks that a login must pass, in the order of the service's layers.

The checks do no I/O. A failed check raises LoginRejectedError.
"""

import asyncio
import contextlib
import time

from django_lakebase.local import login_errors
from django_lakebase.local.faults import FaultRegistry
from django_lakebase.local.login_errors import Dialect, ErrorResponse
from django_lakebase.local.state.model import EndpointRef, WorkspaceState
from django_lakebase.local.tokens import EXPIRED, Audience, Signer, TokenError

# Seconds to wake an endpoint that was suspended because it was idle.
WAKE_TIME = 0.2


class LoginRejectedError(Exception):
    """A rejected login; *rejection* is the message for the client."""

    def __init__(self, rejection: ErrorResponse) -> None:
        super().__init__(rejection.message)
        self.rejection = rejection


class LoginAuthenticator:
    """The login checks for the endpoints of one workspace."""

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
        """Return the endpoint with the host name *host*. Raises LoginRejectedError."""
        if not host:
            raise LoginRejectedError(login_errors.no_sni())
        ref = self._state.resolve_host(host)
        if ref is None:
            raise LoginRejectedError(login_errors.endpoint_not_found())
        return ref

    async def authorize(self, ref: EndpointRef, session_count: int) -> None:
        """
        Check that *ref* accepts one more login, and wake it if it is suspended.

        *session_count* is the number of open sessions. Raises LoginRejectedError.
        """
        ip_blocked = self._faults.get("ip-blocked")
        if ip_blocked is not None and ip_blocked["scope"] != "api":
            detail = login_errors.ip_blocked(self._state.workspace_id)
            raise LoginRejectedError(login_errors.not_authorized(detail))
        if not _accepts_logins(ref):
            raise LoginRejectedError(login_errors.not_authorized())
        if ref.endpoint.is_disabled:
            raise LoginRejectedError(login_errors.endpoint_disabled())
        if ref.endpoint.is_suspended:
            await self._wake(ref)
        if self._faults.get("server-starting") is not None:
            raise LoginRejectedError(login_errors.starting_up())
        fault = self._faults.get("too-many-connections")
        if fault is not None and session_count >= float(fault["limit"]):
            raise LoginRejectedError(login_errors.too_many_connections())

    def check_token(
        self, user: str, token: str, *, role_exists: bool, identity_type: str
    ) -> None:
        """
        Check that *token* permits a login as the role *user*.

        *identity_type* is empty for a role that does not accept tokens. A group's role
        accepts the tokens of the group's members. Raises LoginRejectedError.
        """
        dialect = self._dialect
        try:
            claims = self._signer.verify(Audience.DATABASE, token)
        except TokenError as exc:
            raise LoginRejectedError(dialect.bad_token(user, str(exc))) from None
        rejection = self._faults.reject_login(user, claims.issued_at)
        lifetime = self._faults.get_number("short-token-lifetime", "seconds")
        if rejection is None and lifetime and time.time() > claims.issued_at + lifetime:
            text = f"{EXPIRED} (exp={int(claims.issued_at + lifetime)})"
            rejection = dialect.bad_token(user, text)
        if rejection is None and not role_exists:
            rejection = dialect.no_role(user)
        permitted_roles = [claims.subject]
        if identity_type == "GROUP":
            permitted_roles = self._state.groups_of(claims.subject)
        if rejection is None and (user not in permitted_roles or not identity_type):
            rejection = dialect.wrong_identity(user)
        if rejection is not None:
            raise LoginRejectedError(rejection)

    def suspend(self, ref: EndpointRef) -> None:
        """Suspend the endpoint of *ref*. The next login wakes it."""
        ref.endpoint.is_suspended = True
        self._wakes_at.pop(ref.endpoint.uid, None)

    async def _wake(self, ref: EndpointRef) -> None:
        """
        Delay a login until the endpoint is awake, as the service does.

        The first login starts the wake-up, and later logins wait for the same wake-up.
        """
        endpoint, loop = ref.endpoint, asyncio.get_running_loop()
        options = self._faults.get("suspend")
        seconds = WAKE_TIME if options is None else float(options["wake_seconds"])
        wakes_at = self._wakes_at.setdefault(endpoint.uid, loop.time() + seconds)
        remaining = wakes_at - loop.time()
        if options is None:
            await asyncio.sleep(remaining)
        elif remaining > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(remaining):
                    await self._faults.wait_until_cleared("suspend")
        endpoint.is_suspended = False
        self._wakes_at.pop(endpoint.uid, None)
        self._faults.clear("suspend")


def _accepts_logins(ref: EndpointRef) -> bool:
    endpoint, branch = ref.endpoint, ref.branch
    if endpoint.is_read_write and ref.is_read_only and not endpoint.has_secondaries:
        return False
    return branch.current_state == "READY" and time.time() >= branch.accepts_logins_at
