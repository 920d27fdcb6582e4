"""
Connection pools of psycopg_pool whose connections log in with current tokens.

Imported only if OPTIONS["pool"] is set.

How it works. The workers of a `LakebasePool` open each connection through a
`PoolConnector`, which pins a credential and keeps the last error. While the pool has no
connection at all, callers check for that error every `POLL_INTERVAL` seconds, so they
get the actual reason instead of a bare PoolTimeout. Before a connection is handed out,
its socket is polled, so callers never get a connection that the server has closed.
There is one pool for each process, alias and Target. If the settings change, the old
pool is retired: it closes when its last connection has been returned.

Invariants. `_lock` guards changes to `_pools`; no pool is opened or closed under it.
psycopg_pool's own lock guards the queue and the idle connections. `_checked_out` has
no lock: each change is one operation on a dict, which is atomic. The garbage collector
may run `LakebaseConnectionMixin.__del__` while this thread holds psycopg_pool's lock,
so ``__del__`` only appends to `leaked`; the next `getconn` returns those connections to
the pool. A child process neither uses nor closes the pools of its parent.
"""

import contextlib
import copy
import gc
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from datetime import timedelta
from typing import Any, TypeAlias

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from .auth.registry import access_to
from .auth.sdk import import_sdk
from .config.target import Target
from .connect.connector import Connector
from .connect.errors import connect_error
from .connect.lazy_params import Params
from .connect.liveness import Connection, is_readable, lifetime_of
from .exceptions import ExplainedError
from .failures.classify import failures_by_id
from .failures.failure import Action
from .fork import run_in_child

# All in seconds. Databricks' own examples replace pooled connections after 45 minutes.
MAX_LIFETIME = 2700.0
# How long the pool tries to reconnect before it waits for the next caller. psycopg_pool
# doubles its pauses, so with its default of five minutes callers would still wait long
# after an outage has ended.
RECONNECT_TIMEOUT = 10.0
# How often a caller checks for an error while the pool has no connection.
POLL_INTERVAL = 0.25
# How long a caller waits before it reports an error that is older than its call.
OLD_ERROR_DELAY = 2.0
# The longest extension of a connection's lifetime while no credential is available.
MAX_EXTENSION = 60.0

Key: TypeAlias = tuple[int, str, Hashable]


class PoolConnector:
    """
    Opens the connections of a pool and keeps the last error.

    *failed_at* is the time of *error*, as time.monotonic().
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.error: BaseException | None = None
        self.failed_at = 0.0

    def open(self, connect: Callable[..., Connection], params: Params) -> Connection:
        """
        Open a connection with *connect*; raises LakebaseError.

        Tries again only with a new token or corrected parameters, never after a pause,
        because the pool itself retries.
        """
        try:
            return Connector(
                self.target, params, lambda pinned: connect(**pinned), patient=False
            ).run()
        except Exception as exc:
            self.record(exc)
            raise

    def record(self, error: BaseException) -> None:
        """Record why a connection could not be opened."""
        self.error, self.failed_at = error, time.monotonic()

    def has_permanent_error(self, since: float) -> bool:
        """
        Return whether waiting is useless: the last error is one that no retry fixes.

        Ignores an error from before *since*, as time.monotonic().
        """
        error = self.error
        if error is None or self.failed_at < since:
            return False
        retry_actions = (Action.RETRY, Action.RETRY_BRIEFLY)
        may_clear = (
            isinstance(error, ExplainedError) and error.failure.action in retry_actions
        )
        return not may_clear


class LakebaseConnectionMixin:
    """A psycopg connection that a pool opens through its `PoolConnector`."""

    @classmethod
    def connect(
        cls, conninfo: str = "", *, lakebase: PoolConnector, **params: Any
    ) -> Connection:
        """Open a connection with a current credential; raises LakebaseError."""
        connect = super().connect  # type: ignore[misc]
        return lakebase.open(lambda **pinned: connect(conninfo, **pinned), params)

    def __del__(self) -> None:
        """Close the connection, and report it to its pool if it was never returned."""
        pool = getattr(self, "_pool", None)
        if isinstance(pool, LakebasePool) and pool.is_checked_out(self):
            # Takes no lock: this may run while the thread holds the pool's lock.
            self.pgconn.finish()  # type: ignore[attr-defined]
            pool.leaked.append(self)
        else:
            super().__del__()  # type: ignore[misc]


class LakebaseConnection(LakebaseConnectionMixin, psycopg.Connection[Any]):  # type: ignore[misc]
    """The default connection class of a pool."""


class LakebasePool(ConnectionPool[Any]):
    """
    A pool of connections to one Target.

    *options* are the project's ``OPTIONS["pool"]``; they override the defaults here.
    """

    def __init__(
        self,
        target: Target,
        params: Params,
        configure: Callable[[Connection], object],
        options: dict[str, Any],
    ) -> None:
        self.target = target
        self.is_retired = self.is_finished = False
        self._process = os.getpid()
        self._connector = PoolConnector(target)
        # Connections in use: from the id of each to the thread that took it, or None
        # once that thread is known to have ended.
        self._checked_out: dict[int, weakref.ref[threading.Thread] | None] = {}
        # Closed connections that were garbage-collected while in use.
        self.leaked: deque[Any] = deque()
        self._polls = 0
        self._sets_lifetime = "max_lifetime" not in options
        options = {
            "name": f"django-{target.alias}",
            "timeout": target.connect_budget,
            "reconnect_timeout": RECONNECT_TIMEOUT,
            "max_lifetime": MAX_LIFETIME,
            **options,
        }
        connection_class = options.pop("connection_class", psycopg.Connection)
        try:
            super().__init__(
                connection_class=_with_connector(connection_class),
                kwargs={**params, "autocommit": True, "lakebase": self._connector},
                open=False,
                configure=self._configured(configure),
                **options,
            )
        except (TypeError, ValueError) as exc:
            raise connect_error(
                target, exc, failures_by_id()["pool-options"], seen=exc
            ) from exc

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Import the SDK in the calling thread, then start the workers."""
        # Done before any timeout starts, because on a busy machine the import takes
        # seconds. If it fails, a worker reports the error.
        if self.closed and not self.target.is_native:
            with contextlib.suppress(ImportError):
                import_sdk()
        super().open(wait, timeout)

    def getconn(self, timeout: float | None = None) -> Any:
        """
        Return a connection that the server has not closed.

        Raises LakebaseError with the actual reason if there is none within *timeout*
        seconds.
        """
        seconds = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        while True:
            connection = self._getconn_or_raise(deadline, seconds)
            self._checked_out[id(connection)] = weakref.ref(threading.current_thread())
            # A round trip is needed only if the server has sent data, which is usually
            # the message that ends the session.
            if not is_readable(connection) or _answers(connection):
                return connection
            connection.close()
            self.putconn(connection)

    def putconn(self, conn: Any) -> None:
        """Return *conn* to the pool."""
        self._checked_out.pop(id(conn), None)
        self._extend_without_credential(conn)
        super().putconn(conn)
        if self.is_retired and not self._checked_out:
            self.close()

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool; connections in use are closed when they are returned."""
        self.is_finished = True
        super().close(timeout)

    def is_checked_out(self, connection: object) -> bool:
        """
        Return whether *connection* is in use.

        In a child process it never is: inherited connections belong to the parent.
        """
        is_own = self._process == os.getpid()
        return is_own and not self.closed and id(connection) in self._checked_out

    def retire(self) -> None:
        """Close the pool as soon as none of its connections is in use."""
        self.is_retired = True
        self._replace_abandoned()
        if not self._checked_out:
            self.close()

    def get_stats(self) -> dict[str, int]:
        """Return psycopg_pool's stats, with each polling caller counted only once."""
        return self._without_polls(super().get_stats())

    def pop_stats(self) -> dict[str, int]:
        """Return the stats and reset the counters."""
        stats = self._without_polls(super().pop_stats())
        self._polls = 0
        return stats

    def _without_polls(self, stats: dict[str, int]) -> dict[str, int]:
        for name in ("requests_num", "requests_queued", "requests_errors"):
            if stats.get(name):
                stats[name] = max(0, stats[name] - self._polls)
        return stats

    def _replace_abandoned(self) -> None:
        """
        Replace the connections of threads that ended without returning them.

        A thread that has ended may have passed its connection on, so only connections
        that are garbage are replaced. Django's wrapper holds the connection and is part
        of reference cycles, so an exhausted pool runs the garbage collector, at most
        once for each connection whose thread has ended.
        """
        if not self.leaked and len(self._checked_out) >= self.max_size:
            ended = [
                key
                for key, thread in list(self._checked_out.items())
                if _has_ended(thread)
            ]
            self._checked_out.update(dict.fromkeys(ended))
            if ended:
                gc.collect()
        while self.leaked:
            self.putconn(self.leaked.popleft())

    def _getconn_or_raise(self, deadline: float, seconds: float) -> Any:
        started = time.monotonic()
        self._replace_abandoned()
        while True:
            now = time.monotonic()
            left = deadline - now
            # If connections are in use, wait in a single call, so that this caller
            # keeps its place in the queue.
            any_in_use = bool(self._checked_out)
            try:
                return super().getconn(left if any_in_use else min(left, POLL_INTERVAL))
            except PoolTimeout as exc:
                timeout = exc
            # 0.0 accepts an error of any age.
            since = started if now - started < OLD_ERROR_DELAY else 0.0
            if not any_in_use and self._connector.has_permanent_error(since):
                break
            if time.monotonic() >= deadline:
                break
            self._polls += 1
        raise self._error(timeout, seconds)

    def _error(self, timeout: PoolTimeout, seconds: float) -> BaseException:
        error = self._connector.error
        if not isinstance(error, ExplainedError):
            # No error: all connections are in use, or the first attempt still runs.
            is_exhausted = len(self._checked_out) >= self.max_size
            failure = failures_by_id()["pool-exhausted" if is_exhausted else "waking"]
            waited = f"{seconds:g}"
            return connect_error(
                self.target, timeout, failure, waited=waited, budget=waited
            )
        # A copy for each caller, because threads must not share a traceback.
        error_copy = copy.copy(error)
        error_copy.__cause__ = error.__cause__ or timeout
        return error_copy

    def _configured(
        self, configure: Callable[[Connection], object]
    ) -> Callable[[Connection], None]:
        """Wrap *configure*, so that the pool records its error or its success."""

        def configured(connection: Connection) -> None:
            try:
                configure(connection)
            except Exception as exc:
                failure = failures_by_id()["setup-failed"]
                is_explained = isinstance(exc, ExplainedError)
                self._connector.record(
                    exc
                    if is_explained
                    else connect_error(self.target, exc, failure, seen=exc)
                )
                connection.close()
                raise
            self._connector.error = None
            self._shorten_lifetime(connection)

        return configured

    def _shorten_lifetime(self, connection: Connection) -> None:
        lifetime = lifetime_of(connection)
        if self._sets_lifetime and lifetime is not None:
            left = (lifetime.expires_at - lifetime.opened_at).total_seconds()
            self.max_lifetime = max(1.0, min(MAX_LIFETIME, left / 2))

    def _extend_without_credential(self, connection: Any) -> None:
        # A private attribute: psycopg_pool has no other way to extend the lifetime of a
        # connection. If it is missing, connections are replaced on time, even while no
        # credential is available.
        expires_at = getattr(connection, "_expire_at", None)
        now = time.monotonic()
        if expires_at is None or expires_at > now or self.target.is_native:
            return
        credentials = access_to(self.target).credentials
        if credentials.get_cached() is None:
            credentials.refresh_soon()
            # A quarter of the lifetime at most: a short-lived credential that arrives
            # in the meantime must not have expired before the connection is replaced.
            lifetime = lifetime_of(connection)
            duration = (
                lifetime.expires_at - lifetime.opened_at if lifetime else timedelta()
            )
            extension = min(MAX_EXTENSION, duration.total_seconds() / 4)
            connection._expire_at = now + extension  # noqa: SLF001


def _with_connector(connection_class: Any) -> Any:
    """Return a subclass of *connection_class* that opens through a PoolConnector."""
    if connection_class is psycopg.Connection:
        return LakebaseConnection
    bases = LakebaseConnectionMixin, connection_class
    return type(connection_class.__name__, bases, {})


def _has_ended(thread: "weakref.ref[threading.Thread] | None") -> bool:
    if thread is None:
        return False
    found = thread()
    return found is None or not found.is_alive()


def _answers(connection: Connection) -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg.Error:
        return False
    return True


# Pools inherited from a parent process stay here unused: closing them would end the
# parent's sessions.
_pools: dict[Key, LakebasePool] = {}
_lock = threading.Lock()


def pool_for(
    alias: str, key: Hashable, make: Callable[[], LakebasePool]
) -> LakebasePool:
    """
    Return this process's pool of *alias* for *key*; create it with *make* if needed.

    Retires the alias's pools with another key, because its settings have changed.
    """
    full_key = os.getpid(), alias, key
    pool = _pools.get(full_key)
    if pool is not None and not pool.is_finished and not pool.is_retired:
        return pool
    with _lock:
        pool = _pools.get(full_key)
        if pool is None or pool.is_finished:
            pool = _pools[full_key] = make()
        pool.is_retired = False
        others = [
            other
            for (pid, other_alias, _), other in _pools.items()
            if (pid, other_alias) == full_key[:2] and other is not pool
        ]
    for other in others:
        other.retire()
    return pool


def stats_of(alias: str) -> dict[str, int]:
    """Return the sum of psycopg_pool's stats for this process's pools of *alias*."""
    mine = [
        pool for key, pool in list(_pools.items()) if key[:2] == (os.getpid(), alias)
    ]
    totals: dict[str, int] = {}
    for pool in mine:
        for name, value in pool.get_stats().items():
            totals[name] = totals.get(name, 0) + value
    return totals


def close_pools(alias: str) -> None:
    """Close this process's pools of *alias*."""
    with _lock:
        mine = [key for key in _pools if key[:2] == (os.getpid(), alias)]
        pools = [_pools.pop(key) for key in mine]
    for pool in pools:
        pool.close()


@run_in_child
def _replace_lock_after_fork() -> None:
    global _lock  # noqa: PLW0603 - a thread of the parent may have held it.
    _lock = threading.Lock()
