"""
The web application of the API that the unmodified databricks-sdk uses.

How it works. A request is counted, then fails if a fault applies to it, then is
authenticated (unless it is a login), and then goes to its handler. Requests for the
emulator's own admin API (``/_local/``) skip these steps: no fault applies to them.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from django_lakebase.local.faults import FaultError
from django_lakebase.local.postgres.admin_connection import SqlError

from . import credentials
from .auth import RequestAuthenticator
from .credentials import CredentialHandlers
from .errors import ApiError, invalid, no_such_api
from .fault_responses import FaultInjector, reset
from .urls import PREFIX, Router

# Prefixes of paths that need no token.
PUBLIC_PREFIXES = ("/.well-known/", "/oidc/")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WorkspaceApi:
    """The API of one workspace; *requests* counts the requests by path."""

    def __init__(
        self,
        authenticator: RequestAuthenticator,
        credential_handlers: CredentialHandlers,
        fault_injector: FaultInjector,
        router: Router,
    ) -> None:
        self._authenticator, self._fault_injector = authenticator, fault_injector
        self._credentials, self._router = credential_handlers, router
        self.requests: Counter[str] = Counter()

    def create_application(self) -> web.Application:
        """Create the web application with all routes but those of the admin API."""
        app = web.Application(middlewares=[self._middleware])
        self._authenticator.add_routes(app)
        app.router.add_post(credentials.PATH, self._credentials.create)
        app.router.add_route("*", PREFIX + "{name:projects.*}", self._dispatch)
        return app

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            return await self._respond(request, handler)
        except ConnectionResetError:
            # The client disconnected before its request was complete.
            return reset(request)

    async def _respond(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            if request.path.startswith("/_local/"):
                return await handler(request)
            self.requests[request.path] += 1
            fault_response = await self._fault_injector.respond(request)
            if fault_response is not None:
                return fault_response
            if not request.path.startswith(PUBLIC_PREFIXES):
                self._authenticator.authenticate(request)
            return await handler(request)
        except ApiError as exc:
            return exc.response()
        except (FaultError, SqlError) as exc:
            return invalid(str(exc)).response()
        except (web.HTTPNotFound, web.HTTPMethodNotAllowed):
            return no_such_api(request).response()

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await self._router.dispatch(request))
