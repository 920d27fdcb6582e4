"""
The two ways to log in to PostgreSQL: with a token, or with the project's password.

A strategy belongs to one connection that is being opened. Both have the same methods,
so that nothing else has to ask which of them is in use. *left* is the time that is left
to connect, in seconds.
"""

import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

from django_lakebase.config.target import Target
from django_lakebase.failures.classify import classify, failures_by_id
from django_lakebase.failures.failure import Action, Failure, Source

from .credentials import Credential
from .registry import access_to
from .sdk import import_sdk
from .singleflight import CallError

# Takes the seconds that it may wait; raises CallError.
Getter: TypeAlias = Callable[[float], str]

# Failures that may mean that the user is not the identity of the login.
USER_FAILURES = ("role-missing", "wrong-user", "token-rejected")


class PasswordAuth:
    """A login with the project's password: nothing is fetched, and nothing expires."""

    def __init__(self, target: Target) -> None:
        self._target = target
        # The getters of the parameters that only the workspace knows.
        self.getters: dict[str, Getter] = {}
        self.expires_at: datetime | None = None

    def prepare(self) -> None:
        """Do what must not count against the time limit of connecting."""

    def classify(self, error: BaseException) -> Failure:
        """Return the row of the failure table for a failed login."""
        return classify(error, Source.SERVER, native=True)

    def has_moved(self, host: str, left: float) -> bool:
        """Return whether the workspace now reports another host than *host*."""
        return False

    def drop_rejected(self) -> bool:
        """Stop using the rejected credential; return whether a new one is possible."""
        return False

    def probe(self, left: float) -> bool:
        """Get a new credential for the next attempt; return whether there is one."""
        return False

    def accept(self) -> None:
        """Do nothing: there is no credential to cache."""

    def explain(
        self, failure: Failure, left: float
    ) -> tuple[Failure, dict[str, object]]:
        """Return the failure to report instead of *failure*, and more facts."""
        if failure.id == "password-rejected" and self._target.is_password_token:
            failure = failures_by_id()["password-is-token"]
        return failure, {}


class TokenAuth:
    """
    A login with a token that the workspace issues; host and user may come from it too.

    *credential* is used instead of the cached one, and cached if it logs in.
    """

    def __init__(self, target: Target, credential: Credential | None = None) -> None:
        self._target, self._access = target, access_to(target)
        # A newly issued credential, and the credential of the latest attempt.
        self._issued = credential
        self._credential: Credential | None = None
        self.getters: dict[str, Getter] = {}
        if not target.host:
            self.getters["host"] = self._access.host.get
        if not target.user:
            self.getters["user"] = self._access.user.get
        self.getters["password"] = self._get_token

    def prepare(self) -> None:
        """
        Import the SDK if a credential has to be fetched.

        On a busy machine the import takes long, and a timeout would be blamed on the
        workspace, which has not been called yet.
        """
        if self._access.credentials.get_cached() is None:
            with contextlib.suppress(ImportError):  # The first request reports it.
                import_sdk(self._target.login)

    @property
    def expires_at(self) -> datetime | None:
        """When the credential of the latest attempt expires (aware, UTC)."""
        return self._credential.expires_at if self._credential else None

    def classify(self, error: BaseException) -> Failure:
        """Return the row of the failure table for a failed login."""
        return classify(error, Source.SERVER)

    def has_moved(self, host: str, left: float) -> bool:
        """Return whether the workspace now reports another host than *host*."""
        if self._target.host or not host:
            return False
        self._access.host.mark_stale()
        # If the workspace cannot be reached, this returns the old host.
        return self._access.host.get(left) != host

    def drop_rejected(self) -> bool:
        """Drop the rejected credential; return whether a new one is possible."""
        if self._issued is not None or self._credential is None:
            return False
        self._access.credentials.drop(self._credential)
        return True

    def probe(self, left: float) -> bool:
        """Get a new credential for the next attempt; return whether there is one."""
        if self._issued is None:
            with contextlib.suppress(CallError):
                self._issued = self._access.credentials.probe(left)
                return self._issued is not None
        return False

    def accept(self) -> None:
        """Cache a newly issued credential that has logged in; start the host check."""
        if self._issued is not None:
            self._access.credentials.adopt(self._issued)
        self._access.host_check.start(self._target)

    def explain(
        self, failure: Failure, left: float
    ) -> tuple[Failure, dict[str, object]]:
        """Return the failure to report instead of *failure*, and more facts."""
        access, target = self._access, self._target
        facts: dict[str, object] = {
            "host": target.host or access.host.value,
            "user": target.user or access.user.value,
        }
        if failure.id == "waking":
            access.host.mark_stale()
        if failure.id in USER_FAILURES:
            failure = self._explain_user(failure, facts, left)
        skew = self._credential.describe_clock_skew() if self._credential else ""
        if failure.action is Action.REFRESH and skew:
            failure, facts["skew"] = failures_by_id()["clock-skew"], skew
        return failure, {name: fact for name, fact in facts.items() if fact}

    def _get_token(self, left: float) -> str:
        self._credential = self._issued or self._wait_for_credential(left)
        return self._credential.token

    def _wait_for_credential(self, left: float) -> Credential:
        """Wait at most *left* seconds, also if a search for the endpoint takes long."""
        endpoint, deadline = self._access.endpoint, time.monotonic() + left
        while True:
            found = endpoint.value
            try:
                return self._access.credentials.get(left)
            except CallError as exc:
                # The request for a credential has a shorter limit than the search, and
                # the search may have ended just before that limit.
                goes_on = endpoint.is_running() or endpoint.value != found
                is_timeout = isinstance(exc.__cause__, TimeoutError)
                left = deadline - time.monotonic()
                if not is_timeout or not goes_on or left <= 0:
                    error = self._access.explain_timeout(exc)
                    raise error from error.__cause__

    def _explain_user(
        self, failure: Failure, facts: dict[str, object], left: float
    ) -> Failure:
        """Return `user-not-identity` if another identity logs in, else *failure*."""
        user, groups = self._target.user, frozenset[str]()
        deadline = time.monotonic() + left
        try:
            identity = self._access.user.get(left)
            if user not in ("", identity):
                left = deadline - time.monotonic()
                groups = self._access.workspace.groups(timeout=left)
        except CallError:
            return failure
        if user in groups:
            facts["user_type"] = "GROUP"
        if user in ("", identity, *groups):
            return failure
        facts["identity"] = identity
        return failures_by_id()["user-not-identity"]


Auth: TypeAlias = PasswordAuth | TokenAuth


def auth_for(target: Target, credential: Credential | None = None) -> Auth:
    """Return the strategy for one connection to *target*; does no I/O."""
    if target.login is None:
        return PasswordAuth(target)
    return TokenAuth(target, credential)
