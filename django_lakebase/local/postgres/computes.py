"""
The servers that run: one for each branch, and a hot standby for each that reads only.

Each is kept under the name of its folder, with our own way into it.
"""

import asyncio
import contextlib
import shutil
from dataclasses import dataclass

from django_lakebase.local.state.model import Branch, Endpoint, Estate, Project

from . import provision
from .admin import Backdoor
from .copy import copy_cluster
from .server import Machine, Server


@dataclass(frozen=True, slots=True)
class Compute:
    """A running server, and our way into it."""

    server: Server
    door: Backdoor


class Fleet:
    """Starts, copies and stops servers."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._computes: dict[str, Compute] = {}

    def find(self, folder: str) -> Compute | None:
        """Return the server of *folder*, if it runs."""
        return self._computes.get(folder)

    def of(self, branch: Branch) -> Compute:
        """Return the server of *branch*."""
        return self._computes[branch.folder]

    def all(self) -> list[Compute]:
        """Return every running server."""
        return list(self._computes.values())

    async def start_all(self, estate: Estate) -> None:
        """Start the servers of all branches and standbys of *estate*."""
        branches = [b for p in estate.projects.values() for b in p.live_branches]
        await asyncio.gather(*(self.start(branch) for branch in branches))

    async def start(self, branch: Branch) -> None:
        """Start the server of *branch* and its standbys."""
        await self._start(branch.folder)
        for endpoint in branch.endpoints.values():
            if endpoint.has_standby:
                await self.add_standby(branch, endpoint)

    async def make(self, project: Project, branch: Branch) -> bool:
        """Start the server of a new project; return whether it was made just now."""
        compute = await self._start(branch.folder)
        return await provision.furnish(compute.door, project.owner)

    async def copy(self, source: Branch, branch: Branch) -> str:
        """Start *branch* as a copy of *source*; return where in its log."""
        server = Server(self._machine, branch.folder)
        place = await copy_cluster(self._machine, self.of(source).server, server)
        await self._run(branch.folder, server)
        return place

    async def add_standby(self, branch: Branch, endpoint: Endpoint) -> None:
        """Start the standby that serves *endpoint*."""
        primary = self.of(branch).server
        server = Server(self._machine, endpoint.folder, primary)
        # One of an earlier run may have missed what its primary has thrown away.
        shutil.rmtree(server.folder, ignore_errors=True)
        await copy_cluster(self._machine, primary, server, is_standby=True)
        await self._run(endpoint.folder, server)

    async def rest(self, folder: str) -> None:
        """Stop the server of *folder*, if it runs, and keep its data."""
        await self._halt(folder, keeps=True)

    async def _halt(self, folder: str, *, keeps: bool) -> None:
        compute = self._computes.pop(folder, None)
        if compute is not None:
            compute.door.close()
            await compute.server.stop(keeps=keeps)

    async def remove(self, folder: str) -> None:
        """Stop the server of *folder*, if it runs, and take its data away."""
        await self._halt(folder, keeps=False)
        path = self._machine.directory / folder
        await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def stop(self) -> None:
        """Stop all, the standbys first."""
        order = sorted(self._computes.items(), key=lambda item: item[0], reverse=True)
        for _, compute in order:
            compute.door.close()
        await asyncio.gather(*(compute.server.stop() for _, compute in order))
        self._computes.clear()

    async def _start(self, folder: str) -> Compute:
        return await self._run(folder, Server(self._machine, folder))

    async def _run(self, folder: str, server: Server) -> Compute:
        try:
            await server.start()
            compute = Compute(server, await Backdoor.open(server.socket))
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                await server.stop()
            raise
        self._computes[folder] = compute
        return compute
