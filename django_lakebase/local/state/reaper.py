"""What happens by itself: branches expire, and endpoints go to sleep."""

import asyncio
import time

from django_lakebase.local.api.branches import Branches
from django_lakebase.local.api.projects import Projects
from django_lakebase.local.api.resources import Tree
from django_lakebase.local.postgres import provision

from .model import PURGED_AFTER, Place, Project, branch_name

# Seconds between two looks.
EVERY = 0.5


class Watch:
    """Looks every half second for what is due."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._projects, self._branches = Projects(tree), Branches(tree)

    def start(self) -> asyncio.Task[None]:
        """Start looking; cancel the task to end it."""
        return asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            for project in list(self._tree.estate.projects.values()):
                await self._remove_what_is_over(project)
            for place in list(self._tree.estate.places()):
                await self._let_sleep(place)

    async def _remove_what_is_over(self, project: Project) -> None:
        now = time.time()
        if _is_over(project.deleted_at, now - PURGED_AFTER):
            await self._projects.purge(project)
            self._tree.save()
            return
        sources = {branch.source for branch in project.live_branches}
        for branch in list(project.branches.values()):
            is_parent = branch_name(project, branch) in sources
            has_expired = _is_over(branch.expires_at, now) and not is_parent
            if has_expired or _is_over(branch.deleted_at, now - PURGED_AFTER):
                branch.deleted_at = branch.deleted_at or now
                await self._tree.rest(branch)
                await self._branches.purge(project, branch)
                self._tree.save()

    async def _let_sleep(self, place: Place) -> None:
        endpoint = place.endpoint
        is_due = time.time() - endpoint.active_at > endpoint.suspend_after > 0
        compute = self._tree.fleet.find(place.folder)
        if not is_due or endpoint.is_suspended or compute is None:
            return
        # Nobody counts statements as they pass: PostgreSQL knows.
        active_at = await provision.last_activity(compute.door)
        endpoint.active_at = max(endpoint.active_at, active_at or 0.0)
        if time.time() - endpoint.active_at > endpoint.suspend_after:
            await self._tree.gateway.suspend(place)


def _is_over(moment: float | None, now: float) -> bool:
    return moment is not None and moment <= now
