"""
The effects of faults that change real state, applied when a fault is switched on.

Switching the fault off reverts the change. Because the change is real, the hint of the
resulting error also works, whether it names SQL or an API call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from .faults import FaultRegistry, Value
from .gateway.server import Gateway
from .postgres import provision, sql
from .postgres.admin_connection import AdminConnection
from .postgres.computes import Computes
from .state.model import (
    ENDPOINT,
    Endpoint,
    EndpointRef,
    WorkspaceState,
)

Options = Mapping[str, Value]


class FaultEffects:
    """The effects of faults on the default project."""

    def __init__(
        self,
        state: WorkspaceState,
        computes: Computes,
        gateway: Gateway,
        faults: FaultRegistry,
        *,
        grants: str,
    ) -> None:
        self._state, self._computes, self._gateway = state, computes, gateway
        self._faults, self._grants = faults, grants
        self._old_uid = ""
        self._reset_privileges: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._apply: dict[str, Callable[[Options], Awaitable[None]]] = {
            "suspend": self._suspend,
            "reset-connections": self._reset_connections,
            "freeze-connections": self._freeze_connections,
            "server-starting": self._schedule_server_start,
            "endpoint-disabled": self._disable,
            "endpoint-moved": self._move,
            "role-missing": self._hide_role,
            "role-without-label": self._remove_label,
            "grants-revoked": self._revoke_grants,
            "grants-reset": self._reset_grants,
        }
        self._revert: dict[str, Callable[[], Awaitable[None]]] = {
            "suspend": self._resume,
            "freeze-connections": self._unfreeze_connections,
            "endpoint-disabled": self._enable,
            "endpoint-moved": self._move_back,
            "role-missing": self._restore_role,
            "role-without-label": self._restore_label,
            "grants-revoked": self._restore_grants,
            "grants-reset": self._undo_grants_reset,
        }

    async def switch_on(self, name: str, given: Mapping[str, object]) -> None:
        """
        Switch a fault on, and apply its effect.

        If the fault is already on, its effect is reverted first. If the effect cannot
        be applied, the fault is cleared.
        """
        if name in self._faults.list_active() and name in self._revert:
            await self.switch_off(name)
        options = self._faults.set(name, given)
        apply = self._apply.get(name)
        if apply is None:
            return
        try:
            await apply(options)
        except BaseException:
            self._faults.clear(name)
            raise

    async def switch_off(self, name: str | None = None) -> None:
        """Switch off the fault *name*, or all faults, and revert the effects."""
        names = list(self._faults.list_active()) if name is None else [name]
        for fault in names:
            was_on = self._faults.get(fault) is not None
            self._faults.clear(fault)
            revert = self._revert.get(fault)
            if revert is not None and was_on:
                await revert()

    async def recover(self) -> None:
        """Restore the role that role-missing renamed in a run that was killed."""
        await self._restore_role()

    # Endpoints.

    @property
    def _endpoint(self) -> Endpoint:
        return self._state.default_project.default_branch.endpoints[ENDPOINT]

    def _endpoint_refs(self) -> list[EndpointRef]:
        return list(self._state.endpoint_refs())

    async def _suspend(self, _: Options) -> None:
        for ref in self._endpoint_refs():
            await self._gateway.suspend(ref)

    async def _resume(self) -> None:
        for ref in self._endpoint_refs():
            ref.endpoint.is_suspended = False

    async def _reset_connections(self, options: Options) -> None:
        await self._gateway.reset_connections(str(options["state"]))

    async def _freeze_connections(self, _: Options) -> None:
        self._gateway.freeze_connections(on=True)

    async def _unfreeze_connections(self) -> None:
        self._gateway.freeze_connections(on=False)

    async def _schedule_server_start(self, options: Options) -> None:
        if self._timer is not None:
            self._timer.cancel()
        seconds = float(options["seconds"])
        if seconds:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(
                seconds, self._faults.clear, "server-starting"
            )

    async def _disable(self, _: Options) -> None:
        self._endpoint.is_disabled = True
        await self._gateway.end_sessions(
            self._state.default_project.default_branch.folder
        )

    async def _enable(self) -> None:
        self._endpoint.is_disabled = False

    async def _move(self, _: Options) -> None:
        self._old_uid = self._endpoint.uid
        self._endpoint.uid = Endpoint(id=ENDPOINT).uid
        await self._gateway.end_sessions(
            self._state.default_project.default_branch.folder
        )

    async def _move_back(self) -> None:
        self._endpoint.uid = self._old_uid

    # The service principal's role.

    @property
    def _admin(self) -> AdminConnection:
        return self._computes.get(self._state.default_project.default_branch).admin

    @property
    def _hidden_role(self) -> str:
        return f"{self._state.client_id} hidden by role-missing"

    async def _has_role(self, name: str) -> bool:
        return any(role.name == name for role in await sql.fetch_roles(self._admin))

    async def _hide_role(self, _: Options) -> None:
        await sql.rename_role(self._admin, self._state.client_id, self._hidden_role)

    async def _restore_role(self) -> None:
        role, hidden = self._state.client_id, self._hidden_role
        if not await self._has_role(hidden):
            return
        if await self._has_role(role):
            await sql.drop_role(self._admin, role, hidden)
        await sql.rename_role(self._admin, hidden, role)

    async def _remove_label(self, _: Options) -> None:
        await sql.set_identity_type(self._admin, self._state.client_id, None)

    async def _restore_label(self) -> None:
        role = self._state.client_id
        if await self._has_role(role):
            await sql.set_identity_type(self._admin, role, "SERVICE_PRINCIPAL")

    async def _revoke_grants(self, options: Options) -> None:
        role, privilege = self._state.client_id, str(options["privilege"])
        await provision.revoke(self._admin, role, privilege)

    async def _restore_grants(self) -> None:
        state = self._state
        await provision.restore_grants(
            self._admin, state.client_id, self._grants, state.owner
        )

    async def _reset_grants(self, _: Options) -> None:
        role = self._state.client_id
        self._reset_privileges = await provision.reset_schema(self._admin, role)

    async def _undo_grants_reset(self) -> None:
        role, owner = self._state.client_id, self._state.owner
        if await self._has_role(role):
            privileges = self._reset_privileges
            await provision.restore_schema(self._admin, role, privileges, owner)
