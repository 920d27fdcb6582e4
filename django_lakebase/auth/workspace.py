"""
The Databricks workspace: credentials, identity and endpoints, through databricks-sdk.

Functions named ``fetch_*`` make requests and raise the SDK's errors. They have no time
limit: callers use a `SingleFlight` or `call_bounded`. A process keeps one client per
login, so that it logs in only once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeVar

from django_lakebase.config.target import Login
from django_lakebase.failures.classify import KnownFailure, classify
from django_lakebase.failures.failure import Source
from django_lakebase.fork import run_in_child

from .credentials import Credential, utc_now
from .sdk import explain_login, import_sdk, new_client
from .singleflight import SingleFlight

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"

T = TypeVar("T")

_clients: dict[Login, "WorkspaceClient"] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointInfo:
    """What the workspace reports about an endpoint."""

    name: str
    host: str
    state: str
    is_read_write: bool
    is_disabled: bool


def call_bounded(function: Callable[[], T], timeout: float) -> T:
    """Return the result of *function* within *timeout* seconds; raises CallError."""
    return SingleFlight(function, prepare=import_sdk).wait(timeout)


def log_in(login: Login) -> str:
    """Log in; return the login method and the host, such as ``oauth-m2m, https://…``."""

    def authenticate(client: "WorkspaceClient") -> str:
        client.config.authenticate()
        return f"{client.config.auth_type}, {client.config.host}"

    return _request(login, authenticate)


def fetch_credential(login: Login, endpoint: str) -> Credential:
    """Fetch a new credential; raises KnownFailure if the response is incomplete."""
    response = _request(
        login,
        lambda client: client.postgres.generate_database_credential(endpoint=endpoint),
    )
    if not response.token or response.expire_time is None:
        raise KnownFailure("empty-credential")
    return Credential(
        token=response.token,
        issued_at=utc_now(),
        expires_at=response.expire_time.ToDatetime().replace(tzinfo=UTC),
    )


def fetch_identity(login: Login) -> str:
    """Fetch the identity of *login*, which is also the name of its Postgres role."""
    identity = _request(login, lambda client: client.current_user.me()).user_name
    if not identity:
        raise KnownFailure("identity-unknown")
    return identity


def fetch_groups(login: Login) -> frozenset[str]:
    """
    Fetch the names of the groups that the identity of *login* belongs to.

    The Postgres role of a group accepts the tokens of all its members.
    """
    groups = _request(login, lambda client: client.current_user.me()).groups or ()
    return frozenset(group.display for group in groups if group.display)


def fetch_endpoint(login: Login, name: str) -> EndpointInfo:
    """Fetch the endpoint *name*."""
    response = _request(login, lambda client: client.postgres.get_endpoint(name))
    status: Any = response.status
    hosts = getattr(status, "hosts", None)
    endpoint_type = getattr(status, "endpoint_type", None)
    state = getattr(status, "current_state", None)
    return EndpointInfo(
        name=name,
        host=getattr(hosts, "host", None) or "",
        state=state.value if state else "unknown",
        is_read_write=endpoint_type is None or endpoint_type.value == READ_WRITE,
        is_disabled=bool(getattr(status, "disabled", False)),
    )


def fetch_host(login: Login, name: str) -> str:
    """Fetch the host of the read-write endpoint *name*; raises KnownFailure."""
    endpoint = fetch_endpoint(login, name)
    if not endpoint.is_read_write:
        raise KnownFailure("endpoint-read-only")
    if not endpoint.host:
        raise KnownFailure("host-unknown", state=endpoint.state)
    return endpoint.host


def _request(login: Login, send: Callable[["WorkspaceClient"], T]) -> T:
    """
    Return the result of *send*; retry once if the workspace rejects the login token.

    The retry uses a new client, because the SDK keeps its login token until the token
    expires, even if the workspace has rejected it.
    """
    client = _client(login)
    try:
        return send(client)
    except Exception as exc:
        is_rejected = classify(exc, Source.WORKSPACE).id == "login-token-rejected"
        if not is_rejected or _clients.get(login) is not client:
            # Some login methods run a program for every token, so a login can fail here
            # too.
            config = getattr(client, "config", None)
            known = config and explain_login(config, exc)
            if known is not None:
                raise known from exc
            raise
    _clients.pop(login, None)  # Another thread may have removed it already.
    return send(_client(login))


def _client(login: Login) -> "WorkspaceClient":
    """Return the process's client for *login*; create it if needed."""
    client = _clients.get(login)
    if client is None:
        client = _clients.setdefault(login, new_client(login))
    return client


def forget_clients() -> None:
    """Forget all clients, so that the next request logs in again."""
    _clients.clear()


run_in_child(forget_clients)
