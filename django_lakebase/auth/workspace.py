"""
The Databricks workspace: credentials, identity and endpoints, through databricks-sdk.

Each method but `find_endpoint` makes one or two requests. A process keeps one client
per login, so that it logs in only once.
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from django_lakebase import process
from django_lakebase.config.target import Login
from django_lakebase.failures.classify import KnownFailure, classify
from django_lakebase.failures.failure import Source

from .credentials import Credential, utc_now
from .sdk import explain_login, import_sdk, new_client, role_spec
from .singleflight import SingleFlight

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from .sdk import Client

    AnyClient: TypeAlias = Client | WorkspaceClient

READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"
# The hosts of an endpoint; older versions of the SDK report only the first.
HOST_FIELDS = (
    "host",
    "read_only_host",
    "read_write_pooled_host",
    "read_only_pooled_host",
)
# Failures to list the children of a resource that was deleted, or that the identity may
# not see.
UNSEEN_FAILURES = ("permission-missing", "endpoint-not-found")
# What the SDK calls a login with a client secret of the workspace.
CLIENT_SECRET_LOGIN = "oauth-m2m"  # noqa: S105 - no secret.
ACTIVE = "ACTIVE"
# The most endpoints that an error lists.
LISTED = 10

T = TypeVar("T")

_clients: dict[Login, "AnyClient"] = {}
process.run_in_child(_clients.clear)


def forget_clients() -> None:
    """Forget all clients, so that the next request logs in again."""
    _clients.clear()


class EndpointInfo(NamedTuple):
    """What the workspace reports about an endpoint."""

    name: str
    host: str
    state: str
    is_read_write: bool
    is_disabled: bool
    hosts: tuple[str, ...]

    def has_host(self, host: str) -> bool:
        """
        Return whether *host* belongs to the endpoint; of a list, each must.

        The hosts of the endpoint's read-only computes and poolers also count, even if
        the SDK does not report them.
        """
        own = {_direct_host(name) for name in self.hosts}
        return all(_direct_host(name) in own for name in host.split(","))


class Workspace:
    """
    The workspace of *login*.

    Without a *timeout*, a method runs in the calling thread, without a time limit, and
    raises the SDK's errors or KnownFailure. With a *timeout* in seconds, it raises
    CallError with that error as its cause.
    """

    def __init__(self, login: Login) -> None:
        self._login = login

    def log_in(self, *, timeout: float | None = None) -> str:
        """Log in; return the method and the host, such as ``oauth-m2m, https://…``."""

        def authenticate(client: "AnyClient") -> str:
            client.config.authenticate()
            return f"{client.config.auth_type}, {client.config.host}"

        return self._request(authenticate, timeout)

    def issue_credential(
        self, endpoint: str, *, timeout: float | None = None
    ) -> Credential:
        """Return a new credential for *endpoint*."""

        def issue(client: "AnyClient") -> Credential:
            response = client.postgres.generate_database_credential(endpoint=endpoint)
            if not response.token or response.expire_time is None:
                raise KnownFailure("empty-credential")
            return Credential(
                token=response.token,
                issued_at=utc_now(),
                expires_at=response.expire_time.ToDatetime().replace(tzinfo=UTC),
            )

        return self._request(issue, timeout)

    def identity(self, *, timeout: float | None = None) -> str:
        """Return the identity of the login, which is the name of its Postgres role."""

        def identify(client: "AnyClient") -> str:
            identity = client.current_user.me().user_name
            if not identity:
                raise KnownFailure("identity-unknown")
            return identity

        return self._request(identify, timeout, "iam")

    def groups(self, *, timeout: float | None = None) -> frozenset[str]:
        """
        Return the names of the groups that the identity belongs to.

        The Postgres role of a group accepts the tokens of all its members.
        """

        def list_groups(client: "AnyClient") -> frozenset[str]:
            groups = client.current_user.me().groups or ()
            return frozenset(group.display for group in groups if group.display)

        return self._request(list_groups, timeout, "iam")

    def secrets_expire_at(
        self, *, timeout: float | None = None
    ) -> tuple[datetime, ...] | None:
        """
        Return when the active client secrets of the identity expire (aware, UTC).

        Leaves out secrets that do not expire. The workspace does not tell which of them
        is the login's. Returns None for a login without a client secret, and if the
        workspace lists none that works.
        """

        def list_secrets(client: "AnyClient") -> tuple[datetime, ...] | None:
            client.config.authenticate()
            if client.config.auth_type != CLIENT_SECRET_LOGIN:
                return None
            identity = client.current_user.me().id or ""
            secrets = client.service_principal_secrets_proxy.list(identity)
            active = [
                secret.expire_time
                for secret in secrets
                if secret.status in (None, ACTIVE)
            ]
            times = [datetime.fromisoformat(text) for text in active if text]
            valid = sorted(time for time in times if time > utc_now())
            return tuple(valid) if valid or len(times) < len(active) else None

        return self._request(list_secrets, timeout, "iam", "oauth2")

    def endpoint(self, name: str, *, timeout: float | None = None) -> EndpointInfo:
        """Return what the workspace reports about the endpoint *name*."""

        def describe(client: "AnyClient") -> EndpointInfo:
            return _describe(name, client.postgres.get_endpoint(name))

        return self._request(describe, timeout)

    def create_role(
        self,
        branch: str,
        role: str,
        identity_type: str,
        *,
        timeout: float | None = None,
    ) -> None:
        """
        Create a Postgres role that accepts the tokens of an identity.

        *identity_type* is USER, SERVICE_PRINCIPAL or GROUP. Returns when the role
        exists.
        """

        def create(client: "AnyClient") -> None:
            spec = role_spec(role, identity_type)
            client.postgres.create_role(parent=branch, role=spec).wait()

        self._request(create, timeout)

    def find_endpoint(self, host: str) -> str:
        """
        Return the name of the endpoint that has *host*.

        Makes a request for each project, and if necessary for each branch, that the
        identity may see.
        """

        def find(client: "AnyClient") -> str:
            seen = []
            for endpoint in _list_endpoints(client.postgres):
                if endpoint.has_host(host):
                    return endpoint.name
                seen.append(f"{endpoint.name} ({endpoint.host or 'no host yet'})")
            visible = "It can see no endpoint at all."
            if seen:
                more = f", and {len(seen) - LISTED} more" if seen[LISTED:] else ""
                visible = f"It can see {', '.join(seen[:LISTED])}{more}."
            raise KnownFailure("endpoint-not-found-for-host", visible=visible)

        return self._request(find)

    def host(self, name: str) -> str:
        """Return the host of the read-write endpoint *name*."""
        endpoint = self.endpoint(name)
        if not endpoint.is_read_write:
            raise KnownFailure("endpoint-read-only")
        if not endpoint.host:
            raise KnownFailure("host-unknown", state=endpoint.state)
        return endpoint.host

    def _request(
        self,
        send: Callable[["AnyClient"], T],
        timeout: float | None = None,
        *services: str,
    ) -> T:
        """
        Return the result of *send*; retry once if the workspace rejects the login.

        *services* are the modules of the SDK that *send* uses besides ``postgres``.
        The retry uses a new client, because the SDK keeps its login token until the
        token expires, even if the workspace has rejected it.
        """
        if timeout is not None:
            prepare = partial(import_sdk, self._login, *services)
            flight = SingleFlight(lambda: self._request(send), prepare=prepare)
            return flight.wait(timeout)
        client = self._client()
        try:
            return send(client)
        except Exception as exc:
            is_rejected = classify(exc, Source.WORKSPACE).id == "login-token-rejected"
            if not is_rejected or _clients.get(self._login) is not client:
                # Some login methods run a program for every token, so a login can fail
                # here too.
                config = getattr(client, "config", None)
                known = config and explain_login(config, exc)
                if known is not None:
                    raise known from exc
                raise
        _clients.pop(self._login, None)  # Another thread may have removed it already.
        return send(self._client())

    def _client(self) -> "AnyClient":
        """Return the process's client for the login; create it if needed."""
        client = _clients.get(self._login)
        if client is None:
            client = _clients.setdefault(self._login, new_client(self._login))
        return client


def _describe(name: str, endpoint: Any) -> EndpointInfo:
    status = endpoint.status
    hosts = getattr(status, "hosts", None)
    endpoint_type = getattr(status, "endpoint_type", None)
    state = getattr(status, "current_state", None)
    every = (getattr(hosts, field, None) for field in HOST_FIELDS)
    return EndpointInfo(
        name=name,
        host=getattr(hosts, "host", None) or "",
        state=state.value if state else "unknown",
        is_read_write=endpoint_type is None or endpoint_type.value == READ_WRITE,
        is_disabled=bool(getattr(status, "disabled", False)),
        hosts=tuple(host for host in every if host),
    )


def _direct_host(host: str) -> str:
    """Return *host* in lower case, without the suffix for read-only or pooled hosts."""
    label, dot, domain = host.strip().lower().partition(".")
    return re.sub(r"(-ro)?(-pooler)?$", "", label, count=1) + dot + domain


def _list_endpoints(api: Any) -> Iterator[EndpointInfo]:
    """Yield the endpoints that the identity may see; default branches come first."""
    projects = {
        project.name: getattr(project.status, "default_branch", None)
        for project in api.list_projects()
    }
    for branch in filter(None, projects.values()):
        yield from _list_endpoints_of(api, branch)
    for project, default in projects.items():
        for other in _skip_unseen(api.list_branches(project)):
            if other.name != default:
                yield from _list_endpoints_of(api, other.name)


def _list_endpoints_of(api: Any, branch: str) -> Iterator[EndpointInfo]:
    for endpoint in _skip_unseen(api.list_endpoints(branch)):
        yield _describe(endpoint.name, endpoint)


def _skip_unseen(resources: Iterator[Any]) -> Iterator[Any]:
    """Yield *resources*; nothing if the identity may not see their parent."""
    try:
        yield from resources
    except Exception as exc:
        if classify(exc, Source.WORKSPACE).id not in UNSEEN_FAILURES:
            raise
