"""
Connection pools whose connections bring their own password, with psycopg_pool.

Imported only where OPTIONS["pool"] is set. What is different from a plain pool: its
connections are opened by `Opening`, a caller learns the true reason instead of a bare
PoolTimeout, and a connection that the server has cut is not handed out.
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

from .config import Target
from .connection import (
    Connection,
    Params,
    is_readable,
    lease_of,
    refusal,
)
from .errors import Explained, table
from .forks import in_child
from .kinds import Then
from .opening import Opening
from .workspace import access_to, import_sdk

# Seconds. Databricks' own examples replace pooled connections after 45 minutes.
LONGEST_LIFETIME = 2700.0
# A slot gives up after this long, and the next caller starts afresh: psycopg_pool's
# five minutes leave callers waiting long after an outage.
RECONNECT_TIMEOUT = 10.0
# How often a caller looks for the reason while the pool has no connection.
LOOK_EVERY = 0.25
# How long an old reason is waited out before it is believed.
BELIEVED_AFTER = 2.0
# How much longer a connection is kept at most while no credential can be had.
GRACE = 60.0

Key: TypeAlias = tuple[int, str, Hashable]


class Opener:
    """How a pool opens its connections, and the last error of doing so."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.error: BaseException | None = None
        self.failed_at = 0.0

    def open(self, connect: Callable[..., Connection], params: Params) -> Connection:
        """Open a connection by *connect*, trying twice at most."""
        try:
            return Opening(
                self.target, params, lambda own: connect(**own), patient=False
            ).run()
        except Exception as exc:
            self.note(exc)
            raise

    def note(self, error: BaseException) -> None:
        """Remember why there is no new connection."""
        self.error, self.failed_at = error, time.monotonic()

    def has_failed_for_good(self, since: float) -> bool:
        """Whether waiting is of no use, by an error that is not older than *since*."""
        error = self.error
        if error is None or self.failed_at < since:
            return False
        waited_out = (Then.WAIT, Then.WAIT_BRIEFLY)
        return not (isinstance(error, Explained) and error.failure.then in waited_out)


class LakebaseConnectionMixin:
    """A psycopg connection whose *connect* is given an `Opener` by its pool."""

    @classmethod
    def connect(
        cls, conninfo: str = "", *, lakebase: Opener, **params: Any
    ) -> Connection:
        """Open a connection with a current credential; raises LakebaseError."""
        connect = super().connect  # type: ignore[misc]
        return lakebase.open(lambda **own: connect(conninfo, **own), params)

    def __del__(self) -> None:
        """Close the connection; its pool is told if it was still lent."""
        pool = getattr(self, "_pool", None)
        if isinstance(pool, LakebasePool) and pool.has_lent(self):
            # May run anywhere, also where this thread holds the pool's lock.
            self.pgconn.finish()  # type: ignore[attr-defined]
            pool.abandoned.append(self)
        else:
            super().__del__()  # type: ignore[misc]


class LakebaseConnection(LakebaseConnectionMixin, psycopg.Connection[Any]):  # type: ignore[misc]
    """The connection of a pool without a connection_class of its own."""


class LakebasePool(ConnectionPool[Any]):
    """
    A pool of connections to one Target.

    *options* are the project's ``OPTIONS["pool"]``; they win over our defaults.
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
        self._opener = Opener(target)
        # By id of the connection: the thread that took it, until it is known to have
        # ended.
        self._lent: dict[int, weakref.ref[threading.Thread] | None] = {}
        # Connections that were garbage-collected while they were lent, and closed.
        self.abandoned: deque[Any] = deque()
        self._looks = 0
        self._sets_lifetime = "max_lifetime" not in options
        options = {
            "name": f"django-{target.alias}",
            "timeout": target.connect_budget,
            "reconnect_timeout": RECONNECT_TIMEOUT,
            "max_lifetime": LONGEST_LIFETIME,
            **options,
        }
        own_class = options.pop("connection_class", psycopg.Connection)
        try:
            super().__init__(
                connection_class=_bringing_password(own_class),
                kwargs={**params, "autocommit": True, "lakebase": self._opener},
                open=False,
                configure=self._configured(configure),
                **options,
            )
        except (TypeError, ValueError) as exc:
            raise refusal(target, exc, table()["pool-options"], seen=exc) from exc

    def open(self, wait: bool = False, timeout: float = 30.0) -> None:
        """Start the workers, having imported the SDK in the caller."""
        # Before any clock runs: it takes seconds on a busy machine. Where it cannot
        # be imported, a worker tells why.
        if self.closed and not self.target.is_native:
            with contextlib.suppress(ImportError):
                import_sdk()
        super().open(wait, timeout)

    def getconn(self, timeout: float | None = None) -> Any:
        """
        Return a connection that the server has not cut.

        Raises the true reason as a LakebaseError.
        """
        seconds = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        while True:
            connection = self._getconn_or_reason(deadline, seconds)
            self._lent[id(connection)] = weakref.ref(threading.current_thread())
            # A round trip only where the server has said something unasked: good-bye,
            # mostly.
            if not is_readable(connection) or _answers(connection):
                return connection
            connection.close()
            self.putconn(connection)

    def putconn(self, conn: Any) -> None:
        """Take *conn* back."""
        self._lent.pop(id(conn), None)
        self._keep_while_no_other_can_be_had(conn)
        super().putconn(conn)
        if self.is_retired and not self._lent:
            self.close()

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool; connections in use are closed when they come back."""
        self.is_finished = True
        super().close(timeout)

    def has_lent(self, connection: object) -> bool:
        """
        Return whether *connection* is lent, and has not come back.

        A child process has been lent nothing: what it inherits is its parent's.
        """
        is_own = self._process == os.getpid()
        return is_own and not self.closed and id(connection) in self._lent

    def retire(self) -> None:
        """Close the pool as soon as nobody uses a connection of it."""
        self.is_retired = True
        self._replace_abandoned()
        if not self._lent:
            self.close()

    def get_stats(self) -> dict[str, int]:
        """Return psycopg_pool's figures, a caller that looks again counted once."""
        return self._without_looks(super().get_stats())

    def pop_stats(self) -> dict[str, int]:
        """Return the same, and count anew."""
        stats = self._without_looks(super().pop_stats())
        self._looks = 0
        return stats

    def _without_looks(self, stats: dict[str, int]) -> dict[str, int]:
        for name in ("requests_num", "requests_queued", "requests_errors"):
            if stats.get(name):
                stats[name] = max(0, stats[name] - self._looks)
        return stats

    def _replace_abandoned(self) -> None:
        """
        Replace the connections of threads that ended without returning them.

        That a thread has ended proves nothing, since it may have passed its connection
        on. Only a connection that is garbage is replaced. Django's wrapper, which holds
        it, is part of reference cycles, so a used-up pool runs the garbage collector,
        at most once for each connection whose thread has ended.
        """
        if not self.abandoned and len(self._lent) >= self.max_size:
            ended = [
                key for key, thread in list(self._lent.items()) if _has_ended(thread)
            ]
            self._lent.update(dict.fromkeys(ended))
            if ended:
                gc.collect()
        while self.abandoned:
            self.putconn(self.abandoned.popleft())

    def _getconn_or_reason(self, deadline: float, seconds: float) -> Any:
        started = time.monotonic()
        self._replace_abandoned()
        while True:
            now = time.monotonic()
            left = deadline - now
            # Who waits for another's connection keeps his place in the queue.
            has_some = bool(self._lent)
            try:
                return super().getconn(left if has_some else min(left, LOOK_EVERY))
            except PoolTimeout as exc:
                timeout = exc
            since = started if now - started < BELIEVED_AFTER else 0.0
            if not has_some and self._opener.has_failed_for_good(since):
                break
            if time.monotonic() >= deadline:
                break
            self._looks += 1
        raise self._reason(timeout, seconds)

    def _reason(self, timeout: PoolTimeout, seconds: float) -> BaseException:
        error = self._opener.error
        if not isinstance(error, Explained):
            # Nothing has failed: they are in use, or the first answer is still due.
            is_used_up = len(self._lent) >= self.max_size
            failure = table()["pool-exhausted" if is_used_up else "waking"]
            waited = f"{seconds:g}"
            return refusal(self.target, timeout, failure, waited=waited, budget=waited)
        # A new one each time: threads must not share a traceback.
        reason = copy.copy(error)
        reason.__cause__ = error.__cause__ or timeout
        return reason

    def _configured(
        self, configure: Callable[[Connection], object]
    ) -> Callable[[Connection], None]:
        """Return *configure*, noting its error, or that all is well."""

        def configured(connection: Connection) -> None:
            try:
                configure(connection)
            except Exception as exc:
                failure = table()["setup-failed"]
                told = isinstance(exc, Explained)
                self._opener.note(
                    exc if told else refusal(self.target, exc, failure, seen=exc)
                )
                connection.close()
                raise
            self._opener.error = None
            self._shorten_lifetime(connection)

        return configured

    def _shorten_lifetime(self, connection: Connection) -> None:
        lease = lease_of(connection)
        if self._sets_lifetime and lease is not None:
            left = (lease.expires_at - lease.opened_at).total_seconds()
            self.max_lifetime = max(1.0, min(LONGEST_LIFETIME, left / 2))

    def _keep_while_no_other_can_be_had(self, connection: Any) -> None:
        # psycopg_pool's own mark; where it should be gone one day, the connection is
        # replaced on time as ever.
        expires_at = getattr(connection, "_expire_at", None)
        now = time.monotonic()
        if expires_at is None or expires_at > now or self.target.is_native:
            return
        credentials = access_to(self.target).credentials
        if credentials.ready() is None:
            credentials.renew_soon()
            # Looked at again before the next credential ends: else that would always
            # be over by then, where credentials live for less than the grace.
            lease = lease_of(connection)
            life = lease.expires_at - lease.opened_at if lease else timedelta()
            grace = min(GRACE, life.total_seconds() / 4)
            connection._expire_at = now + grace  # noqa: SLF001


def _bringing_password(own_class: Any) -> Any:
    if own_class is psycopg.Connection:
        return LakebaseConnection
    return type(own_class.__name__, (LakebaseConnectionMixin, own_class), {})


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


# Pools of a parent process stay in here, unused: closing them would end sessions that
# are the parent's.
_pools: dict[Key, LakebasePool] = {}
_lock = threading.Lock()


def pool_for(
    alias: str, key: Hashable, make: Callable[[], LakebasePool]
) -> LakebasePool:
    """
    Return this process's pool of *alias* for *key*, made by *make* if there is none.

    Pools of the alias with another key are retired: its settings have changed.
    """
    full = os.getpid(), alias, key
    pool = _pools.get(full)
    if pool is not None and not pool.is_finished and not pool.is_retired:
        return pool
    with _lock:
        pool = _pools.get(full)
        if pool is None or pool.is_finished:
            pool = _pools[full] = make()
        pool.is_retired = False
        others = [o for k, o in _pools.items() if k[:2] == full[:2] and o is not pool]
    for other in others:
        other.retire()
    return pool


def stats_of(alias: str) -> dict[str, int]:
    """Return psycopg_pool's figures of this process's pools of *alias*, added up."""
    mine = [
        pool for key, pool in list(_pools.items()) if key[:2] == (os.getpid(), alias)
    ]
    totals: dict[str, int] = {}
    for pool in mine:
        for name, figure in pool.get_stats().items():
            totals[name] = totals.get(name, 0) + figure
    return totals


def close_pools(alias: str) -> None:
    """Close this process's pools of *alias*; makes none."""
    with _lock:
        mine = [key for key in _pools if key[:2] == (os.getpid(), alias)]
        pools = [_pools.pop(key) for key in mine]
    for pool in pools:
        pool.close()


@in_child
def _new_lock_after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may hold it.
    _lock = threading.Lock()
