"""
The process's `Access` objects: credential, host and user per login and endpoint.

All aliases and threads with the same login and endpoint share one `Access`. A forked
child keeps them, with their credentials. Finding an `Access` does no I/O.
"""

import contextlib
import time
from collections.abc import Callable
from functools import partial

from django_lakebase import process
from django_lakebase.config.target import Login, Target

from .credentials import CredentialCache
from .sdk import import_sdk
from .singleflight import CallError, SingleFlight
from .workspace import Workspace, forget_clients

# The most seconds that a fork is delayed, for all credentials that are due together.
FORK_TIMEOUT = 1.0

_accesses: dict[tuple[Login, str], "Access"] = {}


class CachedValue:
    """A value that is fetched once, and again after it has been marked stale."""

    def __init__(self, fetch: Callable[[], str], prepare: Callable[[], None]) -> None:
        self._call = SingleFlight(fetch, prepare=prepare)
        self.value = ""
        self._is_stale = False

    def get(self, timeout: float) -> str:
        """Return the value, waiting at most *timeout* seconds; raises CallError."""
        if self.value and not self._is_stale:
            return self.value
        try:
            self.value = self._call.wait(timeout)
        except CallError:
            if not self.value:
                raise
        self._is_stale = False
        return self.value

    def mark_stale(self) -> None:
        """Make the next `get` fetch; if that fails, it returns the old value."""
        self._is_stale = True


class Access:
    """The credential, host and user that *login* gets for *endpoint*."""

    def __init__(self, login: Login, endpoint: str) -> None:
        self.workspace = workspace = Workspace(login)
        prepare = partial(import_sdk, login)
        self.credentials = CredentialCache(
            lambda: workspace.issue_credential(endpoint),
            name=endpoint,
            prepare=prepare,
        )
        # False as soon as one of the aliases that share this object has opted out.
        self.refresh_before_fork = True
        self.host = CachedValue(lambda: workspace.host(endpoint), prepare)
        self.user = CachedValue(workspace.identity, partial(prepare, identity=True))


def access_to(target: Target) -> Access:
    """Return the Access for the login and endpoint of *target*; does no I/O."""
    if target.login is None:
        raise TypeError(f"{target.label} logs in with a password, not with a token")
    key = target.login, target.endpoint
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


def reset() -> None:
    """Forget all credentials and clients, for tests: like a new process."""
    _accesses.clear()
    forget_clients()


@process.run_before_fork
def _refresh_due_credentials() -> None:
    """
    Refresh the credentials that are due, so that no child process has to.

    Otherwise each child that lives for one job would fetch a credential and exit, and
    so would every child after it. Takes no lock that another thread may hold during
    I/O, and waits at most `FORK_TIMEOUT` seconds. Within that time also waits for the
    refreshing thread to end, because a fork would copy its locks without the thread.
    Suppresses every Exception, so that the fork goes ahead.
    """
    deadline = time.monotonic() + FORK_TIMEOUT
    for access in list(_accesses.values()):
        left = deadline - time.monotonic()
        if access.refresh_before_fork and left > 0:
            with contextlib.suppress(Exception):
                access.credentials.refresh_if_due(left)
