"""
The estate as the API walks it: what is found by name, and what all resources share.

Parents are looked for first, so an unknown project is named before its branch.
"""

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.gateway.server import Gateway
from django_lakebase.local.postgres.computes import Fleet
from django_lakebase.local.state.model import Branch, Estate, Place, Project

from .operations import Json, Operations
from .params import invalid, not_found, seconds

DAY = 86400.0
# Seconds: the service's bounds.
SUSPENSIONS = (60.0, 7 * DAY)


class Tree:
    """The estate, and those who carry out what is asked of it; *save* keeps it."""

    def __init__(
        self,
        estate: Estate,
        fleet: Fleet,
        operations: Operations,
        gateway: Gateway,
        *,
        save: Callable[[], None],
    ) -> None:
        self.estate, self.fleet, self.operations = estate, fleet, operations
        self.gateway, self.save = gateway, save

    def project(self, project_id: str) -> Project:
        """Return a project; raises Problem."""
        project = self.estate.projects.get(project_id)
        if project is None or project.is_deleted:
            raise not_found("project")
        return project

    def branch(self, project: Project, branch_id: str) -> Branch:
        """Return a branch of *project*; raises Problem."""
        branch = project.branches.get(branch_id)
        if branch is None or branch.is_deleted:
            raise not_found("branch")
        return branch

    def endpoint(self, project: Project, branch: Branch, endpoint_id: str) -> Place:
        """Return an endpoint of *branch*; raises Problem."""
        endpoint = branch.endpoints.get(endpoint_id)
        if endpoint is None:
            raise not_found("endpoint")
        return Place(project, branch, endpoint)

    def place(self, name: str) -> Place:
        """Return the endpoint *name*; raises Problem."""
        match name.split("/"):
            case ["projects", project_id, "branches", branch_id, "endpoints", one]:
                project = self.project(project_id)
                return self.endpoint(project, self.branch(project, branch_id), one)
            case ["projects", project_id, *_]:
                self.project(project_id)
        raise not_found("endpoint")

    def done(self, name: str, kind: str, response: Json) -> Json:
        """Return an operation that has nothing left to do."""

        async def work() -> Json:
            return response

        return self.operations.start(name, kind, work())

    async def rest(self, branch: Branch) -> None:
        """Stop the servers of *branch*, and keep their data."""
        await self.gateway.end_sessions(branch.folder)
        for endpoint in branch.endpoints.values():
            await self.fleet.rest(endpoint.folder)
        await self.fleet.rest(branch.folder)

    async def tear_down(self, branch: Branch) -> None:
        """Remove the servers of *branch* with their data."""
        for endpoint in branch.endpoints.values():
            await self.fleet.remove(endpoint.folder)
        await self.fleet.remove(branch.folder)


def shows_deleted(request: web.Request) -> bool:
    """Return whether *request* asks for what is deleted too."""
    return request.query.get("show_deleted") == "true"


def purges(request: web.Request) -> bool:
    """Return whether *request* deletes for good."""
    return request.query.get("purge") == "true"


def suspension(fields: Mapping[str, Any], known: float) -> float:
    """Return the seconds after which *fields* let an endpoint sleep, 0 for never."""
    given = fields.get("suspend_timeout_duration")
    if fields.get("no_suspension"):
        if given is not None:
            raise invalid(
                "Only one of no_suspension and suspend_timeout_duration may be set."
            )
        return 0.0
    if given is None:
        return known
    return seconds("spec.suspend_timeout_duration", given, *SUSPENSIONS)
