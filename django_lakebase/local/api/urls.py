"""Which request asks for which resource: the paths under ``/api/2.0/postgres/``."""

from collections.abc import Awaitable

from aiohttp import web

from django_lakebase.local.state.model import Branch, Project

from . import serializers
from .branches import Branches
from .endpoints import Endpoints
from .operations import Json
from .params import Problem
from .projects import Projects
from .resources import Tree
from .roles import Residents

PREFIX = "/api/2.0/postgres/"


def no_api(request: web.Request) -> Problem:
    """Return the refusal of a path that is no API's."""
    text = f"No API found for '{request.method} {request.path.removeprefix('/api')}'"
    return Problem(404, "ENDPOINT_NOT_FOUND", text)


class Routes:
    """Finds who answers a request for a resource."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._projects, self._branches = Projects(tree), Branches(tree)
        self._endpoints, self._residents = Endpoints(tree), Residents(tree)

    async def answer(self, request: web.Request) -> Json:
        """Answer *request*; raises Problem."""
        words = request.path.removeprefix(PREFIX).strip("/").split("/")
        match words:
            case [*_, "operations", _] if request.method == "GET":
                return self._tree.operations.get("/".join(words))
            case ["projects"]:
                found = self._workspace(request)
            case ["projects", project_id, "undelete"] if request.method == "POST":
                found = self._projects.undelete(project_id)
            case ["projects", project_id, *rest]:
                project = self._tree.project(project_id)
                found = self._project(request, project, rest)
            case _:
                raise no_api(request)
        answer = await found if isinstance(found, Awaitable) else found
        if answer is None:
            raise no_api(request)
        return answer

    def _workspace(self, request: web.Request) -> "Found":
        match request.method:
            case "GET":
                return self._projects.list_all(request)
            case "POST":
                return self._projects.create(request)
        return None

    def _project(
        self, request: web.Request, project: Project, rest: list[str]
    ) -> "Found":
        tree, projects, branches = self._tree, self._projects, self._branches
        match request.method, rest:
            case "GET", []:
                return serializers.project(project)
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
            case _, ["branches", branch_id, *inside]:
                branch = tree.branch(project, branch_id)
                return self._branch(request, project, branch, inside)
        return None

    def _branch(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Found":
        branches = self._branches
        match request.method, rest:
            case "GET", []:
                return branches.show(project, branch)
            case "PATCH", []:
                return branches.update(request, project, branch)
            case "DELETE", []:
                return branches.delete(request, project, branch)
            case _, ["endpoints", *inside]:
                return self._endpoint(request, project, branch, inside)
            case _, ["roles", *inside]:
                return self._roles(request, project, branch, inside)
            case _, ["databases", *inside]:
                return self._databases(request, project, branch, inside)
        return None

    def _endpoint(
        self, request: web.Request, project: Project, branch: Branch, rest: list[str]
    ) -> "Found":
        tree, endpoints = self._tree, self._endpoints
        match request.method, rest:
            case "GET", []:
                return endpoints.list_all(request, project, branch)
            case "POST", []:
                return endpoints.create(request, project, branch)
            case "GET", [endpoint_id]:
                return serializers.endpoint(tree.endpoint(project, branch, endpoint_id))
            case "PATCH", [endpoint_id]:
                place = tree.endpoint(project, branch, endpoint_id)
                return endpoints.update(request, place)
            case "DELETE", [endpoint_id]:
                place = tree.endpoint(project, branch, endpoint_id)
                return endpoints.delete(place)
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
