"""The routes under ``/api/2.0/``: the handler for each method and path."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from .branches import BranchHandlers
from .client_secrets import ClientSecretHandlers
from .credentials import CredentialHandlers
from .databases import DatabaseHandlers
from .endpoints import EndpointHandlers
from .errors import no_such_api
from .operations import Json
from .projects import ProjectHandlers
from .resources import Resources
from .roles import RoleHandlers

PREFIX = "/api/2.0/postgres/"
CREDENTIALS = f"{PREFIX}credentials"
CLIENT_SECRETS = "/api/2.0/accounts/servicePrincipals/{id}/credentials/secrets"
PROJECT = "projects/{project_id}"
BRANCH = f"{PROJECT}/branches/{{branch_id}}"
ENDPOINT = f"{BRANCH}/endpoints/{{endpoint_id}}"
ROLE = f"{BRANCH}/roles/{{role_id}}"
DATABASE = f"{BRANCH}/databases/{{database_id}}"

JsonHandler: TypeAlias = Callable[[web.Request], Awaitable[Json]]


def add_routes(
    app: web.Application,
    resources: Resources,
    credentials: CredentialHandlers,
    client_secrets: ClientSecretHandlers,
) -> None:
    """Add the routes to *app*."""
    projects, branches = ProjectHandlers(resources), BranchHandlers(resources)
    endpoints, roles = EndpointHandlers(resources), RoleHandlers(resources)
    databases = DatabaseHandlers(resources, roles)

    async def reject(request: web.Request) -> Json:
        """Raise the error for an unknown path: the first unknown parent comes first."""
        match request.match_info["path"].split("/"):
            case ["projects", project_id, "branches", branch_id, *_]:
                resources.get_branch(resources.get_project(project_id), branch_id)
            case ["projects", project_id, *_]:
                resources.get_project(project_id)
        raise no_such_api(request)

    app.router.add_post(CREDENTIALS, respond_json(credentials.create))
    app.router.add_get(CLIENT_SECRETS, respond_json(client_secrets.list_all))
    routes: list[tuple[str, str, JsonHandler]] = [
        ("GET", "projects", projects.list_all),
        ("POST", "projects", projects.create),
        ("GET", PROJECT, projects.get),
        ("PATCH", PROJECT, projects.update),
        ("DELETE", PROJECT, projects.delete),
        ("POST", f"{PROJECT}/undelete", projects.undelete),
        ("GET", f"{PROJECT}/branches", branches.list_all),
        ("POST", f"{PROJECT}/branches", branches.create),
        ("GET", BRANCH, branches.get),
        ("PATCH", BRANCH, branches.update),
        ("DELETE", BRANCH, branches.delete),
        ("POST", f"{BRANCH}/undelete", branches.undelete),
        ("GET", f"{BRANCH}/endpoints", endpoints.list_all),
        ("POST", f"{BRANCH}/endpoints", endpoints.create),
        ("GET", ENDPOINT, endpoints.get),
        ("PATCH", ENDPOINT, endpoints.update),
        ("DELETE", ENDPOINT, endpoints.delete),
        ("GET", f"{BRANCH}/roles", roles.list_all),
        ("POST", f"{BRANCH}/roles", roles.create),
        ("GET", ROLE, roles.get),
        ("PATCH", ROLE, roles.update),
        ("DELETE", ROLE, roles.delete),
        ("POST", f"{ROLE}/password", roles.reveal_password),
        ("GET", f"{BRANCH}/databases", databases.list_all),
        ("POST", f"{BRANCH}/databases", databases.create),
        ("GET", DATABASE, databases.get),
        ("PATCH", DATABASE, databases.update),
        ("DELETE", DATABASE, databases.delete),
        ("GET", "{name:projects.*/operations/[^/]+}", resources.operations.get),
        ("*", "{path:projects.*?}", reject),
    ]
    for method, path, handler in routes:
        # A path may end in slashes.
        app.router.add_route(
            method, f"{PREFIX}{path}{{slashes:/*}}", respond_json(handler)
        )


def respond_json(
    handler: JsonHandler,
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return *handler* as aiohttp expects it, with a response instead of JSON."""

    async def respond(request: web.Request) -> web.Response:
        return web.json_response(await handler(request))

    return respond
