"""
The Databricks workspace: credentials, identity and endpoints, through databricks-sdk.

The only file that asks Databricks for anything. The SDK takes about a second to
import, so that happens when it is first needed; by the thread that needs it, under a
lock that fork() respects: forking while another thread imports would leave the child
with a half-made module and its import lock held.

Every call is made by a `SingleFlight`, so nobody waits for one longer than he can
afford.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeVar

from . import events
from .config import Login, Target
from .credentials import Credential, CredentialCache, utc_now
from .errors import Known, explain, scrub
from .flight import FlightError, SingleFlight
from .forks import in_child
from .kinds import Source
from .login import explain_login, new_client

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"
# Seconds that a fork may wait for all credentials that are due.
FORK_WAITS = 1.0

T = TypeVar("T")

_import_lock = threading.RLock()
_registry_lock = threading.Lock()
_clients: dict[Login, "WorkspaceClient"] = {}
_accesses: dict[tuple[Login, str], "Access"] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What the workspace says of an endpoint."""

    name: str
    host: str
    state: str
    is_read_write: bool
    is_disabled: bool


class _Lookup:
    """A fact that the workspace is asked for once, until that is in doubt."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._flight = SingleFlight(ask, prepare=import_sdk)
        self.value = ""
        self._in_doubt = False

    def get(self, timeout: float) -> str:
        """Return the fact, waiting *timeout* seconds at most; raises FlightError."""
        if self.value and not self._in_doubt:
            return self.value
        try:
            self.value = self._flight.wait(timeout)
        except FlightError:
            if not self.value:
                raise
        self._in_doubt = False
        return self.value

    def doubt(self) -> None:
        """Ask again next time; the old answer serves if there is no new one."""
        self._in_doubt = True


class Access:
    """
    What one login gives for one endpoint: a credential, the host, the user.

    Shared by all aliases and threads of the process that log in alike.
    """

    def __init__(self, login: Login, endpoint: str) -> None:
        self._login = login
        self.credentials = CredentialCache(
            lambda: _fetch_and_tell(login, endpoint),
            name=endpoint,
            prepare=import_sdk,
        )
        # False once one of the aliases that share it has opted out.
        self.refresh_before_fork = True
        self.host = _Lookup(lambda: fetch_host(login, endpoint))
        self.user = _Lookup(lambda: fetch_identity(login))

    def identify(self, user: str, timeout: float) -> tuple[str, frozenset[str]]:
        """
        Return the login's identity, and its groups if *user* is not the identity.

        Waits at most *timeout* seconds for both; raises FlightError.
        """
        deadline = time.monotonic() + timeout
        identity = self.user.get(timeout)
        if user in ("", identity):
            return identity, frozenset()
        left = deadline - time.monotonic()
        return identity, bounded(lambda: fetch_groups(self._login), left)


def access_to(target: Target) -> Access:
    """Return the access that *target* logs in with; no I/O."""
    if target.login is None:
        raise TypeError(f"{target.label} logs in with a password of its own")
    key = target.login, target.endpoint
    with _registry_lock:
        access = _accesses.get(key)
        if access is None:
            access = _accesses[key] = Access(*key)
        if not target.refresh_before_fork:
            access.refresh_before_fork = False
        return access


def reset() -> None:
    """Forget all credentials and clients, as a new process would; for tests."""
    _accesses.clear()
    _clients.clear()


def bounded(ask: Callable[[], T], seconds: float) -> T:
    """Return what *ask* returns within *seconds*; raises FlightError."""
    return SingleFlight(ask, prepare=import_sdk).wait(seconds)


def import_sdk() -> None:
    """Import the SDK unless that was done; raises ImportError."""
    with _import_lock:
        from databricks.sdk.config import Config

        # It makes its list of settings at first use, and two threads that do so at
        # once end in "dictionary changed size during iteration".
        Config.attributes()


def log_in(login: Login) -> str:
    """Log in to the workspace; return how, and where: ``oauth-m2m, https://…``."""

    def ask(client: "WorkspaceClient") -> str:
        client.config.authenticate()
        return f"{client.config.auth_type}, {client.config.host}"

    return _asked(login, ask)


def fetch_credential(login: Login, endpoint: str) -> Credential:
    """Ask for a new credential; raises the SDK's errors, or Known for an empty one."""
    answer = _asked(
        login, lambda it: it.postgres.generate_database_credential(endpoint=endpoint)
    )
    if not answer.token or answer.expire_time is None:
        raise Known("empty-credential")
    return Credential(
        token=answer.token,
        issued_at=utc_now(),
        expires_at=answer.expire_time.ToDatetime().replace(tzinfo=UTC),
    )


def _fetch_and_tell(login: Login, endpoint: str) -> Credential:
    started = time.monotonic()
    try:
        credential = fetch_credential(login, endpoint)
    except Exception as exc:
        events.credential_failed(
            endpoint,
            failure_id=explain(exc, Source.WORKSPACE).id,
            reason=scrub(str(exc)),
            seconds=time.monotonic() - started,
        )
        raise
    events.credential_issued(
        endpoint,
        issued_at=credential.issued_at,
        expires_at=credential.expires_at,
        seconds=time.monotonic() - started,
    )
    return credential


def fetch_identity(login: Login) -> str:
    """Ask who the login is: the name of its Postgres role."""
    identity = _asked(login, lambda it: it.current_user.me()).user_name
    if not identity:
        raise Known("identity-unknown")
    return identity


def fetch_groups(login: Login) -> frozenset[str]:
    """
    Fetch the names of the groups that the login's identity is a member of.

    A group's Postgres role takes the token of each of its members.
    """
    groups = _asked(login, lambda it: it.current_user.me()).groups or ()
    return frozenset(group.display for group in groups if group.display)


def fetch_endpoint(login: Login, name: str) -> Endpoint:
    """Ask for the endpoint *name*; raises the SDK's errors."""
    answer = _asked(login, lambda it: it.postgres.get_endpoint(name))
    status: Any = answer.status
    hosts = getattr(status, "hosts", None)
    kind = getattr(status, "endpoint_type", None)
    state = getattr(status, "current_state", None)
    return Endpoint(
        name=name,
        host=getattr(hosts, "host", None) or "",
        state=state.value if state else "unknown",
        is_read_write=kind is None or kind.value == READ_WRITE,
        is_disabled=bool(getattr(status, "disabled", False)),
    )


def fetch_host(login: Login, name: str) -> str:
    """Ask for the host of the read-write endpoint *name*."""
    endpoint = fetch_endpoint(login, name)
    if not endpoint.is_read_write:
        raise Known("endpoint-read-only")
    if not endpoint.host:
        raise Known("host-unknown", state=endpoint.state)
    return endpoint.host


def _asked(login: Login, ask: Callable[["WorkspaceClient"], T]) -> T:
    """
    Return what *ask* returns, after a new login if the one so far is not accepted.

    The SDK keeps a login's token for its hour, whatever the workspace says to it.
    """
    client = _client(login)
    try:
        return ask(client)
    except Exception as exc:
        is_refused = explain(exc, Source.WORKSPACE).id == "token-unaccepted"
        if not is_refused or _clients.get(login) is not client:
            # For some logins the SDK runs a program for every new token.
            config = getattr(client, "config", None)
            known = config and explain_login(config, exc)
            if known is not None:
                raise known from exc
            raise
    del _clients[login]
    return ask(_client(login))


def _client(login: Login) -> "WorkspaceClient":
    """Return the login's client: one for the process, so that it logs in once."""
    client = _clients.get(login)
    if client is None:
        client = _clients.setdefault(login, new_client(login))
    return client


@in_child
def _let_go_after_fork() -> None:
    # Another thread of the parent may hold them.
    global _registry_lock, _import_lock
    _registry_lock, _import_lock = threading.Lock(), threading.RLock()
    _clients.clear()


def _before_fork() -> None:
    try:
        _refresh_due_credentials()
    finally:
        _import_lock.acquire()


def _refresh_due_credentials() -> None:
    """
    Refresh the credentials that are due, so that no child has to.

    A child that lives for one job would fetch a credential and end, and so would every
    child after it. Takes no lock that another thread may hold during I/O, and waits
    `FORK_WAITS` seconds at most. Within that time it also waits for the thread to
    end: a fork would copy its locks and not the thread. Raises no Exception.
    """
    deadline = time.monotonic() + FORK_WAITS
    for access in list(_accesses.values()):
        left = deadline - time.monotonic()
        if access.refresh_before_fork and left > 0:
            with contextlib.suppress(Exception):
                access.credentials.refresh_if_due(left)


def _go_on_importing() -> None:
    _import_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_go_on_importing)
