"""
The Databricks workspace: credentials, identity and endpoints, through databricks-sdk.

The only file that speaks to Databricks. The SDK takes about a second to import, so
that happens when it is first needed; by the thread that needs it, under a lock that
fork() respects: forking while another thread imports would leave the child with a
half-made module and its import lock held.

Every call is made by a `SingleFlight`, so nobody waits for one longer than he can
afford. The SDK's own retries are switched off (300 seconds by default): the connect
ladder and the credential cache decide when to try again.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from django.utils.module_loading import import_string

from . import __version__, events
from .config import Login, Target, variable
from .credentials import Credential, CredentialCache, utc_now
from .errors import Known, explain, scrub
from .flight import CALL_BOUND, FlightError, SingleFlight
from .forks import in_child
from .kinds import Source

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

# Seconds. The SDK takes 0 for "not set", which is 300.
RETRY_TIMEOUT = 1
READ_WRITE = "ENDPOINT_TYPE_READ_WRITE"

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
        self.credentials = CredentialCache(
            lambda: _fetch_and_tell(login, endpoint),
            name=endpoint,
            prepare=import_sdk,
        )
        self.host = _Lookup(lambda: fetch_host(login, endpoint))
        self.user = _Lookup(lambda: fetch_identity(login))


def access_to(target: Target) -> Access:
    """Return the access that *target* logs in with; no I/O."""
    if target.login is None:
        raise TypeError(f"{target.label} logs in with a password of its own")
    key = target.login, target.endpoint
    with _registry_lock:
        access = _accesses.get(key)
        if access is None:
            access = _accesses[key] = Access(*key)
        return access


def bounded(ask: Callable[[], T], seconds: float) -> T:
    """Return what *ask* returns within *seconds*; raises FlightError."""
    return SingleFlight(ask, prepare=import_sdk).wait(seconds)


def import_sdk() -> None:
    """Import the SDK unless that was done; raises ImportError."""
    with _import_lock:
        import databricks.sdk  # noqa: F401


def log_in(login: Login) -> str:
    """Log in to the workspace; return how, and where: ``oauth-m2m, https://…``."""
    settings = _client(login).config
    settings.authenticate()
    return f"{settings.auth_type}, {settings.host}"


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
        from databricks.sdk.errors import Unauthenticated

        if not isinstance(exc, Unauthenticated) or _clients.get(login) is not client:
            raise
    del _clients[login]
    return ask(_client(login))


def _client(login: Login) -> "WorkspaceClient":
    """Return the login's client: one for the process, so that it logs in once."""
    client = _clients.get(login)
    if client is None:
        client = _clients[login] = _new_client(login)
    return client


def _new_client(login: Login) -> "WorkspaceClient":
    if login.path:
        return _called(login.path)
    from databricks.sdk import WorkspaceClient

    try:
        return WorkspaceClient(config=_config(login.arguments))
    except ValueError as exc:
        if "Invalid URL 'None'" in str(exc):
            _reach(login.url)
        if "cannot configure default credentials" in str(exc):
            _find_profile(login.arguments)
        raise


def _find_profile(arguments: Mapping[str, Any] | None) -> None:
    """Raise that the profile's file is missing: the SDK passes over it in silence."""
    own = arguments or {
        "profile": variable("DATABRICKS_CONFIG_PROFILE"),
        "config_file": variable("DATABRICKS_CONFIG_FILE"),
    }
    file = own.get("config_file") or "~/.databrickscfg"
    if own.get("profile") and not Path(file).expanduser().exists():
        raise Known("unknown-profile", seen=f"there is no file {file}")


def _reach(url: str) -> None:
    """Raise why *url* cannot be reached: newer SDKs only log it, and go on."""
    import requests

    if url:
        base = url if "://" in url else f"https://{url}"
        address = f"{base}/.well-known/databricks-config"
        answer = requests.get(address, timeout=CALL_BOUND)
        if not answer.ok:
            raise requests.HTTPError(f"{answer.status_code}: {answer.text[:300]}")


def _called(path: str) -> "WorkspaceClient":
    try:
        function = import_string(path)
    except ImportError as exc:
        problem = f'is "{path}", which cannot be imported ({exc})'
        raise Known("workspace-invalid", problem=problem) from exc
    client = function()
    if not hasattr(client, "postgres"):
        problem = f'is "{path}", which returned a {type(client).__name__}'
        raise Known("workspace-invalid", problem=problem)
    return client  # type: ignore[no-any-return]


def _config(arguments: Mapping[str, Any] | None) -> Any:
    from databricks.sdk.clock import RealClock
    from databricks.sdk.config import Config

    class Impatient(RealClock):
        """Lets the SDK believe that it has slept before a retry."""

        slept = 0.0

        def time(self) -> float:
            return super().time() + self.slept

        def sleep(self, seconds: float) -> None:
            self.slept += seconds

    class SettingsOnly(Config):
        """Takes nothing from the environment, which may speak of another workspace."""

        def _load_from_env(self) -> None:
            """Load nothing: by default the environment wins over a profile."""

    # Asked of Config first: it keeps the list, and the subclass inherits it.
    known = {attribute.name for attribute in Config.attributes()}
    unknown = sorted(set(arguments or ()) - known)
    if unknown:
        named = ", ".join(unknown)
        raise Known("workspace-invalid", problem=f"has unknown keys: {named}")
    kind = Config if arguments is None else SettingsOnly
    if arguments is None:
        arguments = _pasted(Config)
    own = {
        "retry_timeout_seconds": RETRY_TIMEOUT,
        "http_timeout_seconds": CALL_BOUND,
        **arguments,
    }
    return kind(
        product="django-lakebase", product_version=__version__, clock=Impatient(), **own
    )


def _pasted(kind: type) -> dict[str, str]:
    """Return the values of the SDK's variables that have blanks around them, cut."""
    variables = {
        attribute.name: os.environ.get(attribute.env or "", "")
        for attribute in kind.attributes()  # type: ignore[attr-defined]
    }
    return {n: v.strip() for n, v in variables.items() if v != v.strip()}


@in_child
def _let_go_after_fork() -> None:
    # Another thread of the parent may hold them.
    global _registry_lock, _import_lock
    _registry_lock, _import_lock = threading.Lock(), threading.RLock()
    _clients.clear()


def _hold_imports() -> None:
    _import_lock.acquire()


def _go_on_importing() -> None:
    _import_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_imports, after_in_parent=_go_on_importing)
