"""
The faults that change something real: done when they are switched on, undone after.

So that the mend which an error names, carried out by SQL or through the API, mends
them for good.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from django_lakebase.local.gateway.server import Gateway
from django_lakebase.local.postgres import provision
from django_lakebase.local.postgres.admin import Backdoor, named
from django_lakebase.local.postgres.computes import Fleet
from django_lakebase.local.state.model import (
    DATABASE,
    ENDPOINT,
    Endpoint,
    Estate,
    Place,
)

from .registry import Faults, Value

Settings = Mapping[str, Value]


class Deeds:
    """What faults do to the estate's first project."""

    def __init__(
        self,
        estate: Estate,
        fleet: Fleet,
        gateway: Gateway,
        faults: Faults,
        *,
        grants: str,
    ) -> None:
        self._estate, self._fleet, self._gateway = estate, fleet, gateway
        self._faults, self._grants = faults, grants
        self._old_uid = ""
        self._timer: asyncio.TimerHandle | None = None
        self._on: dict[str, Callable[[Settings], Awaitable[None]]] = {
            "suspend": self._suspend,
            "cut": self._cut,
            "stall": self._stall,
            "starting": self._start,
            "endpoint-disabled": self._disable,
            "endpoint-moved": self._move,
            "role-missing": self._hide_role,
            "role-unlabelled": self._unlabel,
            "no-grants": self._revoke,
        }
        self._off: dict[str, Callable[[], Awaitable[None]]] = {
            "suspend": self._resume,
            "stall": self._flow,
            "endpoint-disabled": self._enable,
            "endpoint-moved": self._move_back,
            "role-missing": self._show_role,
            "role-unlabelled": self._label,
            "no-grants": self._grant,
        }

    async def switch_on(self, name: str, given: Mapping[str, object]) -> None:
        """Switch a fault on, and do what it does."""
        if name in self._faults.listed() and name in self._off:
            await self.switch_off(name)
        settings = self._faults.set(name, given)
        do = self._on.get(name)
        if do is None:
            return
        try:
            await do(settings)
        except BaseException:
            self._faults.clear(name)
            raise

    async def switch_off(self, name: str | None = None) -> None:
        """Switch a fault off, or all, and undo what it did."""
        names = list(self._faults.listed()) if name is None else [name]
        for one in names:
            was_on = self._faults.get(one) is not None
            self._faults.clear(one)
            undo = self._off.get(one)
            if undo is not None and was_on:
                await undo()

    async def settle(self) -> None:
        """Bring back a role that a run which was killed has left hidden."""
        await self._show_role()

    # Endpoints.

    @property
    def _endpoint(self) -> Endpoint:
        return self._estate.home.default_branch.endpoints[ENDPOINT]

    def _places(self) -> list[Place]:
        return list(self._estate.places())

    async def _suspend(self, _: Settings) -> None:
        for place in self._places():
            await self._gateway.suspend(place)

    async def _resume(self) -> None:
        for place in self._places():
            place.endpoint.is_suspended = False

    async def _cut(self, settings: Settings) -> None:
        await self._gateway.cut(str(settings["which"]))

    async def _stall(self, _: Settings) -> None:
        self._gateway.stall(on=True)

    async def _flow(self) -> None:
        self._gateway.stall(on=False)

    async def _start(self, settings: Settings) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = float(settings["seconds"])
        if seconds:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._faults.clear, "starting")

    async def _disable(self, _: Settings) -> None:
        self._endpoint.is_disabled = True
        await self._gateway.end_sessions(self._estate.home.default_branch.folder)

    async def _enable(self) -> None:
        self._endpoint.is_disabled = False

    async def _move(self, _: Settings) -> None:
        self._old_uid = self._endpoint.uid
        self._endpoint.uid = Endpoint(id=ENDPOINT).uid
        await self._gateway.end_sessions(self._estate.home.default_branch.folder)

    async def _move_back(self) -> None:
        self._endpoint.uid = self._old_uid

    # The service principal's role.

    @property
    def _door(self) -> Backdoor:
        return self._fleet.of(self._estate.home.default_branch).door

    @property
    def _hidden(self) -> str:
        return f"{self._estate.client_id} hidden by role-missing"

    async def _has_role(self, name: str) -> bool:
        return any(role.name == name for role in await provision.roles(self._door))

    async def _hide_role(self, _: Settings) -> None:
        old, new = named(self._estate.client_id), named(self._hidden)
        await self._door.query(f"ALTER ROLE {old} RENAME TO {new}")

    async def _show_role(self) -> None:
        role, hidden = self._estate.client_id, self._hidden
        if not await self._has_role(hidden):
            return
        if await self._has_role(role):
            await provision.drop_role(self._door, role, hidden)
        await self._door.query(f"ALTER ROLE {named(hidden)} RENAME TO {named(role)}")

    async def _unlabel(self, _: Settings) -> None:
        await self._door.query(provision.label(self._estate.client_id, None))

    async def _label(self) -> None:
        role = self._estate.client_id
        if await self._has_role(role):
            await self._door.query(provision.label(role, "SERVICE_PRINCIPAL"))

    async def _revoke(self, settings: Settings) -> None:
        role = named(self._estate.client_id)
        what = f"CONNECT ON DATABASE {named(DATABASE)}"
        if settings["what"] == "schema":
            what = "ALL ON SCHEMA public"
        await self._in_database(f"REVOKE {what} FROM PUBLIC, {role}")

    async def _grant(self) -> None:
        given = provision.grants(self._grants, self._estate.client_id)
        database = named(DATABASE)
        await self._in_database(
            f"GRANT CONNECT ON DATABASE {database} TO PUBLIC;"
            f"GRANT USAGE ON SCHEMA public TO PUBLIC; {given}"
        )

    async def _in_database(self, sql: str) -> None:
        await provision.run_in(self._door, DATABASE, sql)
