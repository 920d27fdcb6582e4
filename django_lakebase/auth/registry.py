"""
The process's `Access` objects: credential, host and user per login and endpoint.

All aliases and threads with the same login and endpoint share one `Access`; without an
endpoint in the settings or the environment, those with the same login and host. A
forked child keeps them, with their credentials. Finding an `Access` does no I/O.
"""

import contextlib
import time
from collections.abc import Callable
from functools import partial

from django_lakebase import process
from django_lakebase.config.target import Login, Target
from django_lakebase.failures.classify import KnownFailure

from .credentials import Credential, CredentialCache
from .host_check import HostCheck
from .sdk import import_sdk
from .singleflight import CALL_TIMEOUT, CallError, SingleFlight
from .workspace import Workspace, forget_clients

# The most seconds that a fork is delayed, for all credentials that are due together.
FORK_TIMEOUT = 1.0
# Seconds after which a search for an endpoint is abandoned. It makes many requests; the
# SDK limits the time of each.
SEARCH_TIMEOUT = 600.0
# And of the login before it, on which the SDK sets no limit.
LOGIN_TIMEOUT = CALL_TIMEOUT

# By the login, the endpoint, and the host if there is no endpoint.
_accesses: dict[tuple[Login, str, str], "Access"] = {}


class CachedValue:
    """
    A value that is fetched once, and again after it has been marked stale.

    A known *value* is not fetched. A fetch that takes longer than its callers can wait
    continues, and later callers get its result; see `SingleFlight` for *call_timeout*.
    """

    def __init__(
        self,
        fetch: Callable[[], str],
        prepare: Callable[[], None],
        *,
        value: str = "",
        call_timeout: float | None = None,
    ) -> None:
        self._call = SingleFlight(
            fetch, prepare=prepare, on_result=self._store, call_timeout=call_timeout
        )
        self.value = value
        self._is_stale = False

    def get(self, timeout: float) -> str:
        """Return the value, waiting at most *timeout* seconds; raises CallError."""
        if self.value and not self._is_stale:
            return self.value
        try:
            self._store(self._call.wait(timeout))
        except CallError:
            if not self.value:
                raise
            self._is_stale = False
        return self.value

    def is_running(self) -> bool:
        """Return whether a fetch is running."""
        return self._call.is_running()

    def mark_stale(self) -> None:
        """Make the next `get` fetch; if that fails, it returns the old value."""
        self._is_stale = True

    def _store(self, value: str) -> None:
        self.value, self._is_stale = value, False


class Access:
    """
    The credential, host and user that *login* gets for *endpoint*.

    If *endpoint* is empty, the endpoint is the one that has *own_host*.
    """

    def __init__(self, login: Login, endpoint: str, own_host: str) -> None:
        self.workspace = workspace = Workspace(login)
        prepare = partial(import_sdk, login)
        self.endpoint = CachedValue(
            partial(self._find_endpoint, own_host),
            prepare,
            value=endpoint,
            call_timeout=SEARCH_TIMEOUT,
        )
        self.credentials = CredentialCache(
            self._issue_credential, name=endpoint or own_host, prepare=prepare
        )
        self.host_check = HostCheck(workspace, self.credentials)
        # False as soon as one of the aliases that share this object has opted out.
        self.refresh_before_fork = True
        self.host = CachedValue(lambda: workspace.host(endpoint), prepare)
        self.user = CachedValue(workspace.identity, partial(prepare, "iam"))

    def explain_timeout(self, error: CallError, **facts: object) -> CallError:
        """Return the error to report if *error* is a timeout during the search."""
        cause = error.__cause__
        is_timeout = isinstance(cause, TimeoutError)
        if self.endpoint.value or not is_timeout or not self.endpoint.is_running():
            return error
        return CallError(KnownFailure("endpoint-search-timeout", str(cause), **facts))

    def _find_endpoint(self, host: str) -> str:
        """Log in, and search for the endpoint of *host*."""
        _cause_raised(lambda: self.workspace.log_in(timeout=LOGIN_TIMEOUT))
        return self.workspace.find_endpoint(host)

    def _issue_credential(self) -> Credential:
        """Find the endpoint if it is not known, and request a credential for it."""
        name = _cause_raised(lambda: self.endpoint.get(CALL_TIMEOUT))
        self.credentials.name = name
        return self.workspace.issue_credential(name)


def _cause_raised(call: Callable[[], str]) -> str:
    """Return the result of *call*; raise the cause of a CallError instead of it."""
    try:
        return call()
    except CallError as exc:
        error = exc.__cause__ or exc
    raise error


def access_to(target: Target) -> Access:
    """Return the Access for the login and endpoint of *target*; does no I/O."""
    if target.login is None:
        raise TypeError(f"{target.label} logs in with a password, not with a token")
    host = "" if target.endpoint else target.host
    key = target.login, target.endpoint, host
    with process.lock:
        access = _accesses.get(key)
        if access is None:
            access = _accesses[key] = Access(*key)
        if not target.refresh_before_fork:
            access.refresh_before_fork = False
        return access


def credentials_of(target: Target) -> CredentialCache | None:
    """Return the credential cache of *target*, or None for a login with a password."""
    return None if target.login is None else access_to(target).credentials


def endpoint_of(target: Target) -> str:
    """
    Return the name of the endpoint of *target*; does no I/O.

    If only the host is configured, returns the host until the name has been found.
    """
    if target.endpoint or target.login is None:
        return target.endpoint
    return access_to(target).credentials.name


def reset() -> None:
    """Forget all credentials and clients, for tests: like a new process."""
    for access in _accesses.values():
        access.host_check.cancel()
    _accesses.clear()
    forget_clients()


@process.run_before_fork
def _refresh_due_credentials() -> None:
    """
    Refresh the credentials that are due, so that no child process has to.

    Otherwise each child that lives for one job would fetch a credential and exit, and
    so would every child after it. Takes no lock that another thread may hold during
    I/O, and waits at most `FORK_TIMEOUT` seconds. Within that time also waits for the
    refreshing thread to end, because a fork would copy its locks without the thread;
    for the same reason, cancels the checks of hosts.
    Suppresses every Exception, so that the fork goes ahead.
    """
    deadline = time.monotonic() + FORK_TIMEOUT
    for access in list(_accesses.values()):
        with contextlib.suppress(Exception):
            access.host_check.cancel(deadline - time.monotonic())
        left = deadline - time.monotonic()
        if access.refresh_before_fork and left > 0:
            with contextlib.suppress(Exception):
                access.credentials.refresh_if_due(left)


@process.run_in_child
def _forget_host_checks() -> None:
    for access in list(_accesses.values()):
        access.host_check.forget()
