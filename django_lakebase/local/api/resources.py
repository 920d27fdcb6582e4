"""
Lookups of resources, and the state and servers that all handlers share.

Parents are looked up first, so the error names the first unknown part of a path.
"""

from collections.abc import Callable

from aiohttp import web

from django_lakebase.local.gateway.server import Gateway
from django_lakebase.local.postgres.admin_connection import AdminConnection
from django_lakebase.local.postgres.computes import Computes
from django_lakebase.local.state.model import (
    Branch,
    EndpointRef,
    Project,
    WorkspaceState,
)

from .errors import bad_request, not_found
from .operations import Json, Operations


class Resources:
    """The state and the servers that it describes; *save* writes the state to disk."""

    def __init__(
        self,
        state: WorkspaceState,
        computes: Computes,
        operations: Operations,
        gateway: Gateway,
        *,
        save: Callable[[], None],
    ) -> None:
        self.state, self.computes, self.operations = state, computes, operations
        self.gateway, self.save = gateway, save

    def get_project(self, project_id: str) -> Project:
        """Return a project that is not deleted; raises ApiError."""
        project = self.state.projects.get(project_id)
        if project is None or project.is_deleted:
            raise not_found("project")
        return project

    def get_branch(self, project: Project, branch_id: str) -> Branch:
        """Return a branch of *project* that is not deleted; raises ApiError."""
        branch = project.branches.get(branch_id)
        if branch is None or branch.is_deleted:
            raise not_found("branch")
        return branch

    def get_endpoint(
        self, project: Project, branch: Branch, endpoint_id: str
    ) -> EndpointRef:
        """Return an endpoint of *branch*; raises ApiError."""
        endpoint = branch.endpoints.get(endpoint_id)
        if endpoint is None:
            raise not_found("endpoint")
        return EndpointRef(project, branch, endpoint)

    def find_project(self, request: web.Request) -> Project:
        """Return the project in the path of *request*; raises ApiError."""
        return self.get_project(request.match_info["project_id"])

    def find_branch(self, request: web.Request) -> Branch:
        """Return the branch in the path of *request*; raises ApiError."""
        project = self.find_project(request)
        return self.get_branch(project, request.match_info["branch_id"])

    def find_endpoint(self, request: web.Request) -> EndpointRef:
        """Return the endpoint in the path of *request*; raises ApiError."""
        project, branch = self.find_project(request), self.find_branch(request)
        return self.get_endpoint(project, branch, request.match_info["endpoint_id"])

    def find_endpoint_by_name(self, name: str) -> EndpointRef:
        """Return the endpoint with the resource name *name*; raises ApiError."""
        match name.split("/"):
            case ["projects", project_id, "branches", branch_id, "endpoints", last]:
                project = self.get_project(project_id)
                return self.get_endpoint(
                    project, self.get_branch(project, branch_id), last
                )
            case ["projects", project_id, *_]:
                self.get_project(project_id)
        raise not_found("endpoint")

    def complete(self, name: str, kind: str, response: Json) -> Json:
        """Return an operation that has nothing left to do, with its *response*."""

        async def work() -> Json:
            return response

        return self.operations.start(name, kind, work())

    async def stop_servers(self, branch: Branch) -> None:
        """Stop the servers of *branch* but keep their data."""
        await self.gateway.end_sessions(branch.folder)
        for endpoint in branch.endpoints.values():
            await self.computes.stop(endpoint.folder)
        await self.computes.stop(branch.folder)

    async def delete_servers(self, branch: Branch) -> None:
        """Delete the servers of *branch* and their data."""
        for endpoint in branch.endpoints.values():
            await self.computes.delete(endpoint.folder)
        await self.computes.delete(branch.folder)

    async def purge_branch(self, project: Project, branch: Branch) -> None:
        """Delete *branch* permanently; its servers must be stopped."""
        await self.delete_servers(branch)
        del project.branches[branch.id]

    async def purge_project(self, project: Project) -> None:
        """Delete *project* permanently; its servers must be stopped."""
        for branch in project.branches.values():
            await self.delete_servers(branch)
        del self.state.projects[project.id]

    def get_admin(self, branch: Branch) -> AdminConnection:
        """Return the admin connection to the server of *branch*; raises ApiError."""
        compute = self.computes.find(branch.folder)
        if compute is None:
            raise bad_request(f"branch is not ready: {branch.current_state}")
        return compute.admin
