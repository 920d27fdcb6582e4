"""
The process's `Access` objects: credential, host and user per login and endpoint.

How it works. All aliases and threads with the same login and endpoint share one
`Access`. Before a fork, this module refreshes the credentials that are due and blocks
imports of the SDK, so that no other thread is importing it. The child gets new locks
and keeps the credentials.

Invariants. Finding an `Access` does no I/O. `_lock` guards `_accesses` and is held only
while an entry is found or added, never during I/O. The hook that runs before a fork
does not take `_lock`: it reads a copy of the entries.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable

from django_lakebase import events
from django_lakebase.config.target import Login, Target
from django_lakebase.failures.classify import classify, scrub
from django_lakebase.failures.failure import Source
from django_lakebase.fork import run_in_child

from . import sdk, workspace
from .credentials import Credential, CredentialCache
from .singleflight import CallError, SingleFlight

# The most seconds that a fork is delayed, for all credentials that are due together.
FORK_TIMEOUT = 1.0

_lock = threading.Lock()
_accesses: dict[tuple[Login, str], "Access"] = {}


class CachedValue:
    """A value that is fetched once, and again after it has been marked stale."""

    def __init__(self, fetch: Callable[[], str]) -> None:
        self._call = SingleFlight(fetch, prepare=sdk.import_sdk)
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
    """
    The credential, host and user that one login gets for one endpoint.

    Shared by all aliases and threads of the process with that login and endpoint.
    """

    def __init__(self, login: Login, endpoint: str) -> None:
        self._login = login
        self.credentials = CredentialCache(
            lambda: _fetch_credential(login, endpoint),
            name=endpoint,
            prepare=sdk.import_sdk,
        )
        # False as soon as one of the aliases that share this object has opted out.
        self.refresh_before_fork = True
        self.host = CachedValue(lambda: workspace.fetch_host(login, endpoint))
        self.user = CachedValue(lambda: workspace.fetch_identity(login))

    def identify(self, user: str, timeout: float) -> tuple[str, frozenset[str]]:
        """
        Return the login's identity, and its groups if *user* is not the identity.

        Waits at most *timeout* seconds for both. Raises CallError.
        """
        deadline = time.monotonic() + timeout
        identity = self.user.get(timeout)
        if user in ("", identity):
            return identity, frozenset()
        left = deadline - time.monotonic()
        groups = workspace.call_bounded(
            lambda: workspace.fetch_groups(self._login), left
        )
        return identity, groups


def access_to(target: Target) -> Access:
    """Return the Access for the login and endpoint of *target*; does no I/O."""
    if target.login is None:
        raise TypeError(f"{target.label} logs in with a password, not with a token")
    key = target.login, target.endpoint
    with _lock:
        access = _accesses.get(key)
        if access is None:
            access = _accesses[key] = Access(*key)
        if not target.refresh_before_fork:
            access.refresh_before_fork = False
        return access


def reset() -> None:
    """Forget all credentials and clients, for tests: like a new process."""
    _accesses.clear()
    workspace.forget_clients()


def _fetch_credential(login: Login, endpoint: str) -> Credential:
    started = time.monotonic()
    try:
        credential = workspace.fetch_credential(login, endpoint)
    except Exception as exc:
        events.credential_failed(
            endpoint,
            failure_id=classify(exc, Source.WORKSPACE).id,
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


def _before_fork() -> None:
    try:
        _refresh_due_credentials()
    finally:
        sdk.block_imports()


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


@run_in_child
def _replace_lock_after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may have held it.
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=sdk.unblock_imports)
