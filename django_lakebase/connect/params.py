"""
Connections that bring their own password.

Theory of operation. Parameters hold small objects in the place of the password, and
of a host or user that only the workspace knows: psycopg renders them when a physical
connection is opened, so whoever took the parameters once connects with a current
token for ever. Our own path *pins* instead: it takes one credential, passes its token
as a string for this attempt, and so knows which one was refused and when the
connection's own expires.

Rules of this file. A token is in no frame that survives: attempts are made in a
method that returns an error instead of raising it, without its traceback. What is
raised is a LakebaseError with the original as its cause.
"""

import select
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

import psycopg
from django.db import OperationalError, connections

from .config import Target
from .credentials import CredentialError, utc_now
from .errors import (
    Explained,
    Known,
    SettingsError,
    chain,
    explain,
    explained,
)
from .flight import FlightError, without_frames
from .kinds import Failure, Source
from .workspace import access_to

Connection: TypeAlias = psycopg.Connection[Any]
Params: TypeAlias = dict[str, Any]
T = TypeVar("T")
Opener: TypeAlias = Callable[[Params], Connection]


class LakebaseError(Explained, OperationalError):
    """
    A connection could not be had; the text says why and how that is mended.

    ``__cause__`` is the original error, ``failure_id`` the row of docs/errors.md.
    """


def refusal(
    target: Target, cause: BaseException, failure: Failure, **facts: object
) -> Explained:
    """Return the error to raise, with *cause* cut loose from its frames."""
    known = next((link for link in chain(cause) if isinstance(link, Known)), None)
    if known is not None:
        facts = {**facts, "seen": known.seen, **known.facts}
    is_static = failure.source is Source.SETTINGS
    kind: type[Explained] = SettingsError if is_static else LakebaseError
    error = explained(kind, failure, target.label, target.facts(**facts))
    error.__cause__ = without_frames(cause)
    return error


def ask_workspace(target: Target, ask: Callable[[], T]) -> T:
    """Return what *ask* returns; raises LakebaseError where the workspace fails."""
    try:
        return ask()
    except (CredentialError, FlightError) as exc:
        cause = exc.__cause__ or exc
    raise refusal(target, cause, explain(cause, Source.WORKSPACE), seen=cause)


def attempt(opener: Opener, params: Params) -> Connection | BaseException:
    """Try once; an error is returned, for frames from here on hold secrets."""
    try:
        return opener(params)
    except Exception as exc:  # noqa: BLE001 - raised again, without frames.
        return without_frames(exc)


class LazyValue:
    """
    A connection parameter that is asked for when psycopg renders it with str().

    Its repr tells nothing. A copy is the object itself; unpickled, it belongs to the
    alias of the same name in that process.
    """

    __slots__ = ("_ask", "_parameter", "_target")

    def __init__(
        self, parameter: str, target: Target, ask: Callable[[float], str]
    ) -> None:
        self._parameter, self._target, self._ask = parameter, target, ask

    def __str__(self) -> str:
        return ask_workspace(
            self._target, lambda: self._ask(self._target.connect_budget)
        )

    def __repr__(self) -> str:
        return f"<{self._parameter} of {self._target.label}, asked for when used>"

    def __copy__(self) -> "LazyValue":
        return self

    def __deepcopy__(self, memo: object) -> "LazyValue":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (self._target.alias, self._parameter)


def _revive(alias: str, parameter: str) -> object:
    return connections[alias].get_connection_params()[parameter]


def lazy_params(target: Target) -> Params:
    """Return the objects that stand for what only the workspace knows; no I/O."""
    if target.is_native:
        return {}
    access = access_to(target)
    params: Params = {
        "password": LazyValue(
            "password", target, lambda seconds: access.credentials.get(seconds).token
        )
    }
    if not target.host:
        params["host"] = LazyValue("host", target, access.host.get)
    if not target.user:
        params["user"] = LazyValue("user", target, access.user.get)
    return params


def resolve_host(target: Target) -> str:
    """Return the host, asking the workspace if it must; raises LakebaseError."""
    return str(lazy_params(target).get("host", target.host))


def resolve_user(target: Target) -> str:
    """Return the user, asking the workspace if it must; raises LakebaseError."""
    return str(lazy_params(target).get("user", target.user))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """When a connection was opened and when its credential expires (UTC)."""

    opened_at: datetime
    expires_at: datetime


_leases: "weakref.WeakKeyDictionary[Connection, Lease]" = weakref.WeakKeyDictionary()


def note_lease(connection: Connection, expires_at: datetime) -> None:
    """Remember that *connection* was opened just now, with a credential until then."""
    _leases[connection] = Lease(opened_at=utc_now(), expires_at=expires_at)


def lease_of(connection: Connection) -> Lease | None:
    """Return what is known of *connection*'s credential; None for a native login."""
    return _leases.get(connection)


def is_readable(connection: Connection) -> bool:
    """
    Return whether the server has sent something that nobody has read; no I/O.

    On an idle connection that is a farewell, mostly: it was suspended, restarted or
    terminated. A connection that is closed already counts too.
    """
    if connection.closed:
        return True
    descriptor = connection.fileno()
    if not hasattr(select, "poll"):
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
