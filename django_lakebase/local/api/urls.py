"""Routing under ``/api/2.0/postgres/``: the handler for each method and path."""

from collections.abc import Awaitable

from aiohttp import web

from django_lakebase.local.state.model import Branch, Project

from .branches import BranchHandlers
from .databases import DatabaseHandlers
from .endpoints import EndpointHandlers
from .errors import no_such_api
from .operations import Json
from .projects import ProjectHandlers
from .resources import Resources
from .roles import RoleHandlers
from .serializers import serialize_endpoint, serialize_project

PREFIX = "/api/2.0/postgres/"


class Router:
    """Calls the handler for a request."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._projects = ProjectHandlers(resources)
        self._branches = BranchHandlers(resources)
        self._endpoints = EndpointHandlers(resources)
        self._roles = RoleHandlers(resources)
        self._databases = DatabaseHandlers(resources, self._roles)

    async def dispatch(self, request: web.Request) -> Json:
        """Return the JSON of the response to *request*; raises ApiError."""
        parts = request.path.removeprefix(PREFIX).strip("/").split("/")
        match parts:
            case [*_, "operations", _] if request.method == "GET":
                return self._resources.operations.get("/".join(parts))
            case ["projects"]:
                result = self._route_projects(request)
            case ["projects", project_id, "undelete"] if request.method == "POST":
                result = self._projects.undelete(project_id)
            case ["projects", project_id, *rest]:
                project = self._resources.get_project(project_id)
                result = self._route_project(request, project, rest)
            case _:
                raise no_such_api(request)
        response = await result if isinstance(result, Awaitable) else result
        if response is None:
            raise no_such_api(request)
        return response

    def _route_projects(self, request: web.Request) -> "Result":
        match request.method:
            case "GET":
                return self._projects.list_all(request)
            case "POST":
                return self._projects.create(request)
        return None

    def _route_project(
        self, request: web.Request, project: Project, rest: list[str]
    ) -> "Result":
        resources, projects, branches = self._resources, self._projects, self._branches
        match request.method, rest:
            case "GET", []:
                return serialize_project(project)
            case "PATCH", []:
                return projects.update(request, project)
            case "DELETE", []:
                return projects.delete(request, project)
            case "GET", ["branches"]:
                return branches.list_all(request, project)
            case "POST", ["branches"]:
                return branches.create(request, project)
            case "POST", ["branches", branch_id, "undelete"]:
                return branches.undelete(project, branch_id)
            case _, ["branches", branch_id, *tail]:
                branch = resources.get_branch(project, branch_id)
                return self._route_branch(request, project, branch, tail)
        return None

    def _route_branch(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Result":
        branches = self._branches
        match request.method, rest:
            case "GET", []:
                return branches.get(project, branch)
            case "PATCH", []:
                return branches.update(request, project, branch)
            case "DELETE", []:
                return branches.delete(request, project, branch)
            case _, ["endpoints", *tail]:
                return self._route_endpoints(request, project, branch, tail)
            case _, ["roles", *tail]:
                return self._route_roles(request, project, branch, tail)
            case _, ["databases", *tail]:
                return self._route_databases(request, project, branch, tail)
        return None

    def _route_endpoints(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Result":
        resources, endpoints = self._resources, self._endpoints
        match request.method, rest:
            case "GET", []:
                return endpoints.list_all(request, project, branch)
            case "POST", []:
                return endpoints.create(request, project, branch)
            case "GET", [endpoint_id]:
                return serialize_endpoint(
                    resources.get_endpoint(project, branch, endpoint_id)
                )
            case "PATCH", [endpoint_id]:
                ref = resources.get_endpoint(project, branch, endpoint_id)
                return endpoints.update(request, ref)
            case "DELETE", [endpoint_id]:
                ref = resources.get_endpoint(project, branch, endpoint_id)
                return endpoints.delete(ref)
        return None

    def _route_roles(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Result":
        roles = self._roles
        match request.method, rest:
            case "GET", []:
                return roles.list_all(request, project, branch)
            case "POST", []:
                return roles.create(request, project, branch)
            case "GET", [role_id]:
                return roles.get(project, branch, role_id)
            case "PATCH", [role_id]:
                return roles.update(request, project, branch, role_id)
            case "DELETE", [role_id]:
                return roles.delete(request, project, branch, role_id)
            case "POST", [role_id, "password"]:
                return roles.reveal_password(branch, role_id)
        return None

    def _route_databases(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Result":
        databases = self._databases
        match request.method, rest:
            case "GET", []:
                return databases.list_all(request, project, branch)
            case "POST", []:
                return databases.create(request, project, branch)
            case "GET", [database_id]:
                return databases.get(project, branch, database_id)
            case "PATCH", [database_id]:
                return databases.update(request, project, branch, database_id)
            case "DELETE", [database_id]:
                return databases.delete(project, branch, database_id)
        return None


Result = Json | Awaitable[Json] | None
