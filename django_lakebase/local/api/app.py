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

from . import urls
from .auth import RequestAuthenticator
from .client_secrets import ClientSecretHandlers
from .credentials import CredentialHandlers
from .errors import ApiError, invalid, no_such_api
from .fault_responses import FaultInjector, reset
from .resources import Resources

# Prefixes of paths that need no token.
PUBLIC_PREFIXES = ("/.well-known/", "/oidc/")

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WorkspaceApi:
    """The API of one workspace; *requests* counts the requests by path."""

    def __init__(
        self,
        authenticator: RequestAuthenticator,
        fault_injector: FaultInjector,
        resources: Resources,
        credentials: CredentialHandlers,
        client_secrets: ClientSecretHandlers,
    ) -> None:
        self._authenticator, self._fault_injector = authenticator, fault_injector
        self._resources, self._credentials = resources, credentials
        self._client_secrets = client_secrets
        self.requests: Counter[str] = Counter()

    def create_application(self) -> web.Application:
        """Create the web application with all routes but those of the admin API."""
        app = web.Application(middlewares=[self._middleware])
        self._authenticator.add_routes(app)
        urls.add_routes(app, self._resources, self._credentials, self._client_secrets)
        return app

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        try:
            if not request.path.startswith("/_local/"):
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
        except ConnectionResetError:
            # The client disconnected before its request was complete.
            return reset(request)
