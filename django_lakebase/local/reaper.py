"""Background clean-up: removes expired resources and suspends idle endpoints."""

import asyncio
import time

from .api.resources import Resources
from .postgres import sql
from .state.model import PURGE_AFTER, EndpointRef, Project

# Seconds.
INTERVAL = 0.5


class Reaper:
    """Checks all projects and endpoints every half second."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def start(self) -> asyncio.Task[None]:
        """Start the background task; cancel it to stop."""
        return asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            for project in list(self._resources.state.projects.values()):
                await self._remove_expired(project)
            for ref in list(self._resources.state.endpoint_refs()):
                await self._suspend_if_idle(ref)

    async def _remove_expired(self, project: Project) -> None:
        now = time.time()
        if _has_passed(project.deleted_at, now - PURGE_AFTER):
            await self._resources.purge_project(project)
            self._resources.save()
            return
        sources = {branch.source for branch in project.live_branches}
        for branch in list(project.branches.values()):
            is_parent = branch.name in sources
            has_expired = _has_passed(branch.expires_at, now) and not is_parent
            if has_expired or _has_passed(branch.deleted_at, now - PURGE_AFTER):
                branch.deleted_at = branch.deleted_at or now
                await self._resources.stop_servers(branch)
                await self._resources.purge_branch(project, branch)
                self._resources.save()

    async def _suspend_if_idle(self, ref: EndpointRef) -> None:
        endpoint = ref.endpoint
        is_due = time.time() - endpoint.active_at > endpoint.suspend_after > 0
        compute = self._resources.computes.find(ref.folder)
        if not is_due or endpoint.is_suspended or compute is None:
            return
        # The gateway does not parse statements: PostgreSQL has the last activity.
        active_at = await sql.fetch_last_activity(compute.admin)
        endpoint.active_at = max(endpoint.active_at, active_at or 0.0)
        if time.time() - endpoint.active_at > endpoint.suspend_after:
            await self._resources.gateway.suspend(ref)


def _has_passed(timestamp: float | None, now: float) -> bool:
    return timestamp is not None and timestamp <= now
