"""
The running servers: one for each branch, and one hot standby for each read-only host.

The name of its folder identifies a server. Each server has an admin connection.
"""

import asyncio
import contextlib
import shutil
from dataclasses import dataclass

from django_lakebase.local.state.model import Branch, Endpoint, Project, WorkspaceState

from . import provision, sql
from .admin_connection import AdminConnection
from .launcher import Launcher
from .server import Server


@dataclass(frozen=True, slots=True)
class Compute:
    """A running server and the admin connection to it."""

    server: Server
    admin: AdminConnection


class Computes:
    """The running servers by folder, with methods to start, copy and stop them."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._computes: dict[str, Compute] = {}

    def find(self, folder: str) -> Compute | None:
        """Return the server in *folder*, or None if it is not running."""
        return self._computes.get(folder)

    def get(self, branch: Branch) -> Compute:
        """Return the server of *branch*, which must be running."""
        return self._computes[branch.folder]

    def list_running(self) -> list[Compute]:
        """Return every running server."""
        return list(self._computes.values())

    async def start_all(self, state: WorkspaceState) -> None:
        """Start the servers of all branches and standbys of *state*."""
        branches = [b for p in state.projects.values() for b in p.live_branches]
        await asyncio.gather(*(self.start(branch) for branch in branches))

    async def start(self, branch: Branch) -> None:
        """Start the server of *branch* and its standbys."""
        await self._start(branch.folder)
        for endpoint in branch.endpoints.values():
            if endpoint.has_standby:
                await self.add_standby(branch, endpoint)

    async def create(self, project: Project, branch: Branch) -> bool:
        """Start a project's server; return False if its database already existed."""
        compute = await self._start(branch.folder)
        return await provision.provision_project(compute.admin, project.owner)

    async def create_copy(self, source: Branch, branch: Branch) -> str:
        """Start *branch* as a copy of *source*; return the LSN before the copy."""
        parent, server = self.get(source), Server(self._launcher, branch.folder)
        lsn = await sql.fetch_lsn(parent.admin)
        await server.copy_from(parent.server)
        await self._run(branch.folder, server)
        return lsn

    async def add_standby(self, branch: Branch, endpoint: Endpoint) -> None:
        """Start the standby that serves *endpoint*."""
        primary = self.get(branch).server
        server = Server(self._launcher, endpoint.folder, primary)
        # A standby of an earlier run may need WAL that its primary has removed.
        shutil.rmtree(server.folder, ignore_errors=True)
        await server.copy_from(primary)
        await self._run(endpoint.folder, server)

    async def stop(self, folder: str) -> None:
        """Stop the server in *folder*, if it is running, and keep its data."""
        await self._stop(folder, keeps_data=True)

    async def _stop(self, folder: str, *, keeps_data: bool) -> None:
        compute = self._computes.pop(folder, None)
        if compute is not None:
            await compute.admin.close()
            await compute.server.stop(keeps_data=keeps_data)

    async def delete(self, folder: str) -> None:
        """Stop the server in *folder*, if it is running, and delete its data."""
        await self._stop(folder, keeps_data=False)
        path = self._launcher.directory / folder
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def stop_all(self) -> None:
        """Stop all servers, the standbys first."""
        order = sorted(self._computes.items(), key=lambda item: item[0], reverse=True)
        for _, compute in order:
            await compute.admin.close()
        await asyncio.gather(*(compute.server.stop() for _, compute in order))
        self._computes.clear()

    async def _start(self, folder: str) -> Compute:
        return await self._run(folder, Server(self._launcher, folder))

    async def _run(self, folder: str, server: Server) -> Compute:
        try:
            await server.start()
            compute = Compute(server, await AdminConnection.open(server))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                await server.stop()
            raise
        self._computes[folder] = compute
        return compute
