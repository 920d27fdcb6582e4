"""
Who is let in: the reasons for which a login is refused, in the order of the layers.

Nothing is moved here and nothing written: what the client is told is an exception.
"""

import asyncio
import contextlib
import time

from django_lakebase.local.faults.registry import Faults
from django_lakebase.local.state.model import Estate, Place
from django_lakebase.local.tokens import EXPIRED, Kind, Signer, TokenError

from . import messages
from .messages import Dialect
from .wire import Refusal

# Seconds that an endpoint takes to wake which went to sleep by itself.
WAKES_IN = 0.2


class RefusedError(Exception):
    """A login was refused; the argument is what the client is told."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Admission:
    """Decides about logins to the endpoints of one estate."""

    def __init__(
        self, estate: Estate, signer: Signer, faults: Faults, dialect: Dialect
    ) -> None:
        self._estate, self._signer = estate, signer
        self._faults, self._dialect = faults, dialect
        self._wakes_at: dict[str, float] = {}

    def place(self, name: str) -> Place:
        """Return where the host *name* leads; raises RefusedError."""
        if not name:
            raise RefusedError(messages.no_sni())
        place = self._estate.find_host(name)
        if place is None:
            raise RefusedError(messages.no_endpoint())
        return place

    async def admit(self, place: Place, joined: int) -> None:
        """Let a login in that is one more than *joined*; raises RefusedError."""
        blocked = self._faults.get("ip-blocked")
        if blocked is not None and blocked["where"] != "api":
            because = messages.ip_blocked(self._estate.workspace_id)
            raise RefusedError(messages.not_authorized(because))
        if not _is_open(place):
            raise RefusedError(messages.not_authorized())
        if place.endpoint.is_disabled:
            raise RefusedError(messages.disabled())
        if place.endpoint.is_suspended:
            await self._wake(place)
        if self._faults.get("starting") is not None:
            raise RefusedError(messages.starting())
        limit = self._faults.get("too-many-connections")
        if limit is not None and joined >= float(limit["limit"]):
            raise RefusedError(messages.too_many())

    def check_token(
        self, user: str, token: str, *, exists: bool, identity_type: str
    ) -> None:
        """
        Check that *token* may log in as the role *user*; raises RefusedError.

        *identity_type* is empty for a role that takes no tokens. The role of a group
        takes the tokens of the group's members.
        """
        dialect = self._dialect
        try:
            claims = self._signer.read(Kind.DATABASE, token)
        except TokenError as exc:
            raise RefusedError(dialect.bad_token(user, str(exc))) from None
        refusal = self._faults.refuse_login(user, claims.issued_at)
        life = self._faults.number("token-life", "seconds")
        if refusal is None and life and time.time() > claims.issued_at + life:
            text = f"{EXPIRED} (exp={int(claims.issued_at + life)})"
            refusal = dialect.bad_token(user, text)
        if refusal is None and not exists:
            refusal = dialect.no_role(user)
        names = [claims.subject]
        if identity_type == "GROUP":
            names = self._estate.groups_of(claims.subject)
        if refusal is None and (user not in names or not identity_type):
            refusal = dialect.wrong_identity(user)
        if refusal is not None:
            raise RefusedError(refusal)

    def put_to_sleep(self, place: Place) -> None:
        """Have the next login wait until the endpoint of *place* is awake."""
        place.endpoint.is_suspended = True
        self._wakes_at.pop(place.endpoint.uid, None)

    async def _wake(self, place: Place) -> None:
        """Hold a login until the endpoint is awake, as the service does."""
        endpoint, loop = place.endpoint, asyncio.get_running_loop()
        settings = self._faults.get("suspend")
        seconds = WAKES_IN if settings is None else float(settings["wake"])
        wakes_at = self._wakes_at.setdefault(endpoint.uid, loop.time() + seconds)
        left = wakes_at - loop.time()
        if settings is None:
            await asyncio.sleep(left)
        elif left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._faults.cleared("suspend")
        endpoint.is_suspended = False
        self._wakes_at.pop(endpoint.uid, None)
        self._faults.clear("suspend")


def _is_open(place: Place) -> bool:
    endpoint, branch = place.endpoint, place.branch
    if endpoint.is_read_write and place.is_read_only and not endpoint.has_secondaries:
        return False
    return branch.state == "READY" and time.time() >= branch.opens_at
