"""Which request asks for which resource: the paths under ``/api/2.0/postgres/``."""

from collections.abc import Awaitable

from aiohttp import web

from . import shapes
from .estate import Branch, Project
from .operations import Json
from .problems import Problem
from .residents import Residents
from .resources import Resources

PREFIX = "/api/2.0/postgres/"


def no_api(request: web.Request) -> Problem:
    """Return the refusal of a path that is no API's."""
    text = f"No API found for '{request.method} {request.path.removeprefix('/api')}'"
    return Problem(404, "ENDPOINT_NOT_FOUND", text)


class Routes:
    """Finds who answers a request for a resource."""

    def __init__(self, resources: Resources, residents: Residents) -> None:
        self._resources, self._residents = resources, residents

    async def answer(self, request: web.Request) -> Json:
        """Answer *request*; raises Problem."""
        words = request.path.removeprefix(PREFIX).strip("/").split("/")
        match words:
            case [*_, "operations", _] if request.method == "GET":
                return self._resources.operations.get("/".join(words))
            case ["projects"]:
                found = self._projects(request)
            case ["projects", project_id, "undelete"] if request.method == "POST":
                found = self._resources.undelete_project(project_id)
            case ["projects", project_id, *rest]:
                project = self._resources.project(project_id)
                found = self._project(request, project, rest)
            case _:
                raise no_api(request)
        answer = await found if isinstance(found, Awaitable) else found
        if answer is None:
            raise no_api(request)
        return answer

    def _projects(self, request: web.Request) -> "Found":
        match request.method:
            case "GET":
                return self._resources.list_projects(request)
            case "POST":
                return self._resources.create_project(request)
        return None

    def _project(
        self, request: web.Request, project: Project, rest: list[str]
    ) -> "Found":
        resources = self._resources
        match request.method, rest:
            case "GET", []:
                return shapes.project(project)
            case "PATCH", []:
                return resources.update_project(request, project)
            case "DELETE", []:
                return resources.delete_project(request, project)
            case "GET", ["branches"]:
                return resources.list_branches(request, project)
            case "POST", ["branches"]:
                return resources.create_branch(request, project)
            case "POST", ["branches", branch_id, "undelete"]:
                return resources.undelete_branch(project, branch_id)
            case _, ["branches", branch_id, *inside]:
                branch = resources.branch(project, branch_id)
                return self._branch(request, project, branch, inside)
        return None

    def _branch(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Found":
        resources = self._resources
        match request.method, rest:
            case "GET", []:
                return resources.show_branch(project, branch)
            case "PATCH", []:
                return resources.update_branch(request, project, branch)
            case "DELETE", []:
                return resources.delete_branch(request, project, branch)
            case _, ["endpoints", *inside]:
                return self._endpoints(request, project, branch, inside)
            case _, ["roles", *inside]:
                return self._roles(request, project, branch, inside)
            case _, ["databases", *inside]:
                return self._databases(request, project, branch, inside)
        return None

    def _endpoints(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Found":
        resources = self._resources
        match request.method, rest:
            case "GET", []:
                return resources.list_endpoints(request, project, branch)
            case "POST", []:
                return resources.create_endpoint(request, project, branch)
            case "GET", [endpoint_id]:
                return shapes.endpoint(resources.endpoint(project, branch, endpoint_id))
            case "PATCH", [endpoint_id]:
                place = resources.endpoint(project, branch, endpoint_id)
                return resources.update_endpoint(request, place)
            case "DELETE", [endpoint_id]:
                place = resources.endpoint(project, branch, endpoint_id)
                return resources.delete_endpoint(place)
        return None

    def _roles(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Found":
        residents = self._residents
        match request.method, rest:
            case "GET", []:
                return residents.list_roles(request, project, branch)
            case "POST", []:
                return residents.create_role(request, project, branch)
            case "GET", [role_id]:
                return residents.show_role(project, branch, role_id)
            case "PATCH", [role_id]:
                return residents.update_role(request, project, branch, role_id)
            case "DELETE", [role_id]:
                return residents.delete_role(request, project, branch, role_id)
            case "POST", [role_id, "password"]:
                return residents.reveal_password(branch, role_id)
        return None

    def _databases(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Found":
        residents = self._residents
        match request.method, rest:
            case "GET", []:
                return residents.list_databases(request, project, branch)
            case "POST", []:
                return residents.create_database(request, project, branch)
            case "GET", [database_id]:
                return residents.show_database(project, branch, database_id)
            case "PATCH", [database_id]:
                return residents.update_database(request, project, branch, database_id)
            case "DELETE", [database_id]:
                return residents.delete_database(project, branch, database_id)
        return None


Found = Json | Awaitable[Json] | None
