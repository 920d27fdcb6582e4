"""
Connection pools of psycopg_pool whose connections log in with current tokens.

Imported only if OPTIONS["pool"] is set.

How it works. The workers of a `LakebasePool` open each connection with a `Connector`,
which makes all retries; psycopg_pool adds none. If connecting fails for good, the
waiting callers get that error at once, instead of a bare PoolTimeout at the end. After
a failure the worker pauses, so that errors that come at once do not cause a busy loop,
or a flood of requests for credentials. Before a connection is handed out, its socket is
polled, so callers never get a connection that the server has closed. There is one pool
for each process, alias and Target. If the settings change, the old pool is retired: it
closes when its last connection has been returned.

Invariants. `process.lock` guards changes to `_pools`; no pool is opened or closed under
it. psycopg_pool's own lock guards the queue and the idle connections. `_checked_out`
has no lock: each change is one operation on a dict, which is atomic. The garbage
collector may run `LakebaseConnectionMixin.__del__` while this thread holds
psycopg_pool's lock, so ``__del__`` only appends to `leaked`; the next `getconn` returns
those connections to the pool. A child process neither uses nor closes the pools of its
parent.
"""

import copy
import gc
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import psycopg
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from . import process
from .auth.strategies import auth_for
from .config.target import Target
from .connect.connector import Connector
from .connect.errors import connect_error
from .connect.liveness import (
    Connection,
    has_ended,
    lifetime_of,
    must_be_kept,
)
from .connect.params import Params
from .exceptions import ExplainedError, SettingsError
from .failures.classify import failures_by_id
from .failures.failure import Failure
from .failures.render import build_error

# All in seconds. Databricks' own examples replace pooled connections after 45 minutes.
MAX_LIFETIME = 2700.0
# The pause of a worker after it could not connect.
FAILURE_PAUSE = 1.0
# The longest extension of a connection's lifetime while no credential is available.
MAX_EXTENSION = 60.0

# The process, the alias, and its settings.
Key: TypeAlias = tuple[int, str, Hashable]


class _Loan:
    """A checkout of a connection by the current thread."""

    __slots__ = ("_thread",)

    def __init__(self) -> None:
        self._thread: weakref.ref[threading.Thread] | None = weakref.ref(
            threading.current_thread()
        )

    def has_just_ended(self) -> bool:
        """Return whether the thread has ended; true only once."""
        if self._thread is None:
            return False
        thread = self._thread()
        if thread is not None and thread.is_alive():
            return False
        self._thread = None
        return True


class LakebaseConnectionMixin:
    """A psycopg connection that belongs to a `LakebasePool`."""

    @classmethod
    def connect(
        cls, conninfo: str = "", *, lakebase_pool: "LakebasePool", **params: Any
    ) -> Connection:
        """Open a connection with a current credential; raises LakebaseError."""
        connect = super().connect  # type: ignore[misc]
        return lakebase_pool.connect(lambda pinned: connect(conninfo, **pinned), params)

    def __del__(self) -> None:
        """Close the connection, and report it to its pool if it was never returned."""
        pool = _pool_of(self)
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

    *configure* sets up each new connection. *options* are the project's
    ``OPTIONS["pool"]``; they override the defaults here.
    """

    def __init__(
        self,
        target: Target,
        params: Params,
        configure: Callable[[Connection], object],
        options: dict[str, Any],
    ) -> None:
        self.target = target
        self.is_retired = False
        self._process = os.getpid()
        self._configure_session = configure
        self._error: ExplainedError | None = None
        self._closing = threading.Event()
        # Connections in use, by id.
        self._checked_out: dict[int, _Loan] = {}
        # Closed connections that were garbage-collected while in use.
        self.leaked: deque[Any] = deque()
        self._sets_lifetime = "max_lifetime" not in options
        options = {
            "name": f"django-{target.alias}",
            "timeout": target.connect_budget,
            # The Connector has already retried.
            "reconnect_timeout": 0.0,
            "max_lifetime": MAX_LIFETIME,
            **options,
        }
        connection_class = options.pop("connection_class", psycopg.Connection)
        try:
            super().__init__(
                connection_class=_with_pool(connection_class),
                kwargs={**params, "autocommit": True, "lakebase_pool": self},
                open=False,
                # Rejects one in *options*, as in Django: `connect` sets connections up.
                configure=None,
                **options,
            )
        except (TypeError, ValueError) as exc:
            raise connect_error(
                target, exc, failures_by_id()["pool-options"], seen=exc
            ) from exc
        if "reset" in options and "num_workers" not in options:
            # Workers also reset connections, for which one must be free while all
            # others connect.
            self.num_workers = self.max_size + 1

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Import the SDK in the calling thread, then start the workers."""
        if self.closed:
            auth_for(self.target).prepare()
        super().open(wait, timeout)

    def getconn(self, timeout: float | None = None) -> Any:
        """
        Return a connection that the server has not closed.

        Raises LakebaseError with the actual reason if there is none within *timeout*
        seconds, or if connecting failed for good.
        """
        seconds = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        self._replace_abandoned()
        while True:
            try:
                connection = super().getconn(deadline - time.monotonic())
            except PoolTimeout as exc:
                error = self._timeout_error(exc, seconds)
                raise error from error.__cause__
            self._checked_out[id(connection)] = _Loan()
            if not has_ended(connection):
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
        self._closing.set()
        super().close(timeout)

    @property
    def is_current(self) -> bool:
        """Whether new connections of this process may come from the pool."""
        is_own = self._process == os.getpid()
        return is_own and not self.is_retired and not self.is_finished

    @property
    def is_finished(self) -> bool:
        """Whether the pool was closed; a new one is not open yet either."""
        return self._closing.is_set()

    def connect(
        self, connect: Callable[[Params], Connection], params: Params
    ) -> Connection:
        """Open a connection for psycopg_pool, in a worker; raises LakebaseError."""
        try:
            connection = Connector(
                self.target, params, connect, pause=self._pause
            ).run()
            self._set_up(connection)
        except Exception as exc:
            error = self._error = self._explained(exc)
            if not error.failure.is_retried:
                self._fail_waiting(error)
            self._closing.wait(FAILURE_PAUSE)
            raise
        self._error = None
        lifetime = lifetime_of(connection)
        if self._sets_lifetime and lifetime is not None:
            left = lifetime.duration.total_seconds()
            self.max_lifetime = max(1.0, min(MAX_LIFETIME, left / 2))
        return connection

    def reconnect_failed(self) -> None:
        """Try again if callers wait, because nothing else tries to connect for them."""
        super().reconnect_failed()
        if self.get_stats()["requests_waiting"]:
            # Adds a connection; while callers wait, there is no idle one to check.
            self.check()

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

    def _pause(self, seconds: float, error: BaseException, failure: Failure) -> None:
        # A caller may time out before the connector gives up.
        self._error = connect_error(self.target, error, failure, seen=error)
        if self._closing.wait(seconds):
            raise PoolClosed(f"the pool {self.name!r} is closed")

    def _set_up(self, connection: Connection) -> None:
        try:
            self._configure_session(connection)
        except Exception:
            connection.close()
            raise

    def _explained(self, error: Exception) -> ExplainedError:
        if isinstance(error, ExplainedError):
            return error
        failure = failures_by_id()["setup-failed"]
        return connect_error(self.target, error, failure, seen=error)

    def _fail_waiting(self, error: ExplainedError) -> None:
        """
        Raise *error* in the callers that wait for a connection.

        Does nothing while connections are in use, because these callers may get one
        that is returned, and nothing if the pool is closed: they then get PoolClosed.
        """
        if self._checked_out or self._closing.is_set():
            return
        for client in _take_waiting(self):
            client.fail(_copy(error))

    def _replace_abandoned(self) -> None:
        """
        Replace the connections of threads that ended without returning them.

        A thread that has ended may have passed its connection on, so only connections
        that are garbage are replaced. Django's wrapper holds the connection and is part
        of reference cycles, so an exhausted pool runs the garbage collector, at most
        once for each connection whose thread has ended.
        """
        if not self.leaked and len(self._checked_out) >= self.max_size:
            loans = list(self._checked_out.values())
            if sum(loan.has_just_ended() for loan in loans):
                gc.collect()
        while self.leaked:
            self.putconn(self.leaked.popleft())

    def _timeout_error(self, timeout: PoolTimeout, seconds: float) -> ExplainedError:
        error = self._error
        if error is not None:
            return _copy(error, timeout)
        # No error: all connections are in use, or the first attempt still runs.
        is_exhausted = len(self._checked_out) >= self.max_size
        failure = failures_by_id()["pool-exhausted" if is_exhausted else "waking"]
        waited = f"{seconds:g}"
        return connect_error(
            self.target, timeout, failure, waited=waited, budget=waited
        )

    def _extend_without_credential(self, connection: Any) -> None:
        is_due = _get_end_of_life(connection) <= time.monotonic()
        lifetime = lifetime_of(connection) if is_due else None
        if lifetime is not None and must_be_kept(connection, self.target):
            # A quarter of the lifetime at most: a short-lived credential that arrives
            # in the meantime must not have expired before the connection is replaced.
            quarter = lifetime.duration.total_seconds() / 4
            end = time.monotonic() + min(MAX_EXTENSION, quarter)
            _set_end_of_life(connection, end)


def _copy(error: ExplainedError, cause: BaseException | None = None) -> ExplainedError:
    """Return a copy of *error*, because threads must not share a traceback."""
    error_copy = copy.copy(error)
    error_copy.__cause__ = error.__cause__ or cause
    return error_copy


def _with_pool(connection_class: Any) -> Any:
    """Return a subclass of *connection_class* that belongs to a `LakebasePool`."""
    if connection_class is psycopg.Connection:
        return LakebaseConnection
    bases = LakebaseConnectionMixin, connection_class
    return type(connection_class.__name__, bases, {})


# The private attributes of psycopg_pool that this module uses. A test fails if one of
# them disappears.


def _take_waiting(pool: ConnectionPool[Any]) -> list[Any]:
    """
    Remove and return the callers that wait for a connection.

    psycopg_pool itself ends a wait early only if the pool is closed, and has no hook
    for a failed attempt.
    """
    with pool._lock:  # noqa: SLF001
        waiting = list(pool._waiting)  # noqa: SLF001
        pool._waiting.clear()  # noqa: SLF001
    return waiting


def _pool_of(connection: object) -> object:
    """Return the pool of a connection in use, also while it is garbage-collected."""
    return getattr(connection, "_pool", None)


def _get_end_of_life(connection: Any) -> float:
    """Return when the pool replaces *connection*, on the monotonic clock."""
    return float(connection._expire_at)  # noqa: SLF001


def _set_end_of_life(connection: Any, end: float) -> None:
    """Set when the pool replaces *connection*: max_lifetime is only for new ones."""
    connection._expire_at = end  # noqa: SLF001


# Pools inherited from a parent process stay here unused: closing them would end the
# parent's sessions.
_pools: dict[Key, LakebasePool] = {}


def pool_for(wrapper: Any, target: Target) -> LakebasePool:
    """
    Return this process's pool for *wrapper*, a Django connection; create it if needed.

    Retires the alias's pools with other settings. Does not open the pool. Raises
    SettingsError.
    """
    key = os.getpid(), target.alias, (target, wrapper.timezone_name)
    with process.lock:
        pool = _pools.get(key)
        if pool is None or pool.is_finished:
            pool = _pools[key] = _new_pool(wrapper, target)
        pool.is_retired = False
        others = [
            other for other in _own_pools(target.alias).values() if other is not pool
        ]
    for other in others:
        other.retire()
    return pool


def _new_pool(wrapper: Any, target: Target) -> LakebasePool:
    settings_dict = wrapper.settings_dict
    # Checked only when the pool is created, as in Django.
    if settings_dict.get("CONN_MAX_AGE", 0) != 0:
        failure = failures_by_id()["pool-age"]
        raise build_error(SettingsError, failure, target.label, {})
    options = settings_dict["OPTIONS"]["pool"]
    has_checks = settings_dict.get("CONN_HEALTH_CHECKS")
    # The pool keeps a reference to this wrapper, which never connects. With *wrapper*,
    # the connection of an ended thread would stay alive.
    separate = type(wrapper)(settings_dict, target.alias)
    return LakebasePool(
        target,
        wrapper.get_connection_params(),
        separate._configure_connection,  # noqa: SLF001 - Django's.
        {
            "check": ConnectionPool.check_connection if has_checks else None,
            **({} if options is True else options),
        },
    )


def _own_pools(alias: str) -> dict[Key, LakebasePool]:
    # A copy, because another thread may close a pool meanwhile.
    own = os.getpid(), alias
    return {key: pool for key, pool in list(_pools.items()) if key[:2] == own}


def stats_of(alias: str) -> dict[str, int]:
    """Return the sum of psycopg_pool's stats for this process's pools of *alias*."""
    totals: Counter[str] = Counter()
    for pool in _own_pools(alias).values():
        totals.update(pool.get_stats())
    return dict(totals)


def close_pools(alias: str) -> None:
    """Close this process's pools of *alias*."""
    with process.lock:
        pools = [_pools.pop(key) for key in _own_pools(alias)]
    for pool in pools:
        pool.close()
