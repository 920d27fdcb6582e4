"""
The database engine that Django loads for ``"ENGINE": "django_lakebase"``.

A thin layer over Django's PostgreSQL backend. It fills the settings from the
environment, and replaces the password with a credential from the workspace.
"""

import logging
import random
import time
import weakref
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql.base import (
    DatabaseWrapper as PostgreSQLDatabaseWrapper,
)
from psycopg import DataError, OperationalError, ProgrammingError, sql

from . import events, fork
from .auth.credentials import utc_now
from .auth.registry import access_to
from .client import DatabaseClient
from .config import libpq
from .config.cache import TargetCache
from .config.fill import fill_settings
from .config.resolve import OWN_OPTIONS
from .config.target import Target
from .connect import session_state
from .connect.connector import TIMEZONE_OPTION, Connector, attempt, takes_timezone
from .connect.errors import connect_error
from .connect.lazy_params import LazyValue, Params, lazy_params
from .connect.liveness import Connection, Lifetime, is_readable, lifetime_of
from .creation import DatabaseCreation
from .exceptions import SettingsError, build_error
from .failures.classify import failures_by_id

if TYPE_CHECKING:
    from .pool import LakebasePool

    Base = PostgreSQLDatabaseWrapper
else:
    # A mixin: django_lakebase.postgis combines it with another backend.
    Base = object

logger = logging.getLogger("django_lakebase")

# Wrappers that have opened a connection. A forked child must not use it, because two
# processes on one socket read each other's responses, and must not close it, because
# that would end the parent's session. The child keeps such connections in _inherited.
_connected: "weakref.WeakSet[LakebaseMixin]" = weakref.WeakSet()
_inherited: list[Connection] = []

# Detect half-open connections after about a minute instead of two hours. In seconds,
# except for tcp_user_timeout, which is in milliseconds.
KEEPALIVES = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30000,
}
# The age cap: connections are replaced at a random point between these shares of the
# remaining lifetime of their credential, so that processes do not reconnect in the same
# second.
MIN_AGE_SHARE, MAX_AGE_SHARE = 0.6, 0.9


class LakebaseMixin(Base):
    """A mixin that gives a PostgreSQL backend a current credential per connection."""

    client_class = DatabaseClient
    creation_class = DatabaseCreation

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._target_cache = TargetCache()
        self._borrowed_from: LakebasePool | None = None
        self._is_borrowing = False
        fill_settings(self.settings_dict, self.alias)
        self._close_at_by_settings: float | None = None
        self._has_warned = False

    def get_connection_params(self) -> Params:
        """
        Return psycopg's parameters; the token is fetched when psycopg uses it.

        Does no I/O, because Django calls this at every checkout from a pool. Raises
        SettingsError, an ImproperlyConfigured.
        """
        target = self.get_target()
        params: Params = super().get_connection_params()
        for name in OWN_OPTIONS:
            params.pop(name, None)
        params |= libpq.connection_params(
            target, self.settings_dict["OPTIONS"], self._startup_options(target)
        )
        if password := params.get("password"):
            # Debug pages show the repr; only psycopg calls str().
            params["password"] = LazyValue("password", target, lambda _: password)
        defaults = {
            **KEEPALIVES,
            "fallback_application_name": _application_name(),
        }
        return {**defaults, **params, **lazy_params(target)}

    def get_target(self) -> Target:
        """Return the Target of the settings and the environment; does no I/O."""
        return self._target_cache.get(self.settings_dict, self.alias)

    @property
    def lifetime(self) -> Lifetime | None:
        """When the connection was opened, and when its credential expires (UTC)."""
        connection = self.connection
        return None if connection is None else lifetime_of(connection)

    def get_new_connection(self, conn_params: Params) -> Connection:
        """
        Open a connection, or take one from the pool.

        Without a pool, retries within ``OPTIONS["connect_budget"]`` seconds. Raises
        LakebaseError.
        """
        connect = super().get_new_connection
        _connected.add(self)
        self._borrowed_from = self.pool
        if self._borrowed_from is not None:
            self._is_borrowing = True
            try:
                outcome = attempt(connect, conn_params)
            finally:
                self._is_borrowing = False
            if isinstance(outcome, BaseException):
                raise outcome
            self._cap_age(None)
            return outcome
        connection = Connector(self.get_target(), conn_params, connect).run()
        self._cap_age(lifetime_of(connection))
        return connection

    @property
    def pool(self) -> "LakebasePool | None":
        """The pool of this alias, process and Target; None without OPTIONS["pool"]."""
        is_borrowed = self._is_borrowing or self.connection is not None
        if is_borrowed and self._borrowed_from is not None:
            # Return the connection to its pool, even if the settings have changed.
            return self._borrowed_from
        if not isinstance(self.settings_dict["OPTIONS"], dict):
            self.get_target()  # Raises SettingsError.
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        target = self.get_target()
        try:
            from .pool import LakebasePool, pool_for
        except ImportError as exc:
            failure = failures_by_id()["pool-package-missing"]
            raise build_error(SettingsError, failure, target.label, {}) from exc

        def make() -> LakebasePool:
            from psycopg_pool import ConnectionPool

            # Checked only when the pool is created, as in Django.
            if self.settings_dict.get("CONN_MAX_AGE", 0) != 0:
                raise build_error(
                    SettingsError, failures_by_id()["pool-age"], target.label, {}
                )
            health_checks = self.settings_dict.get("CONN_HEALTH_CHECKS")
            pool_options = {} if options is True else dict(options)
            checks = ConnectionPool.check_connection if health_checks else None
            # A separate wrapper, which never connects. The pool keeps a reference to
            # it: with *self*, the connection of an ended thread would stay alive.
            wrapper: Any = type(self)(self.settings_dict, self.alias)
            return LakebasePool(
                target,
                self.get_connection_params(),
                wrapper._configure_connection,  # noqa: SLF001
                {"check": checks, **pool_options},
            )

        return pool_for(self.alias, (target, self.timezone_name), make)

    def pool_stats(self) -> dict[str, int]:
        """Return psycopg_pool's stats for this alias, without creating a pool."""
        if not self.settings_dict["OPTIONS"].get("pool"):
            return {}
        from .pool import stats_of

        return stats_of(self.alias)

    def close_pool(self) -> None:
        """Close this process's pools of the alias, without creating one."""
        if self.settings_dict["OPTIONS"].get("pool"):
            from .pool import close_pools

            close_pools(self.alias)

    def connect(self) -> None:
        """Open a connection, set it up, and start tracking its session."""
        super().connect()
        if self.connection is not None:
            session_state.track(self.connection)

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a tracked cursor; with *name* it is server-side."""
        cursor = super().create_cursor(name)
        if name is not None:
            # Django instantiates this class itself, and does not use the connection's
            # server_cursor_factory.
            cursor.__class__ = session_state.tracking_class(type(cursor))
        return cursor

    def close_if_health_check_failed(self) -> None:
        """
        Replace a lost connection; Django calls this before it opens a cursor.

        Raises LakebaseError if the lost session had state that a new one would lack.
        """
        fork.detect_fork()
        super().close_if_health_check_failed()
        connection = self.connection
        # Autocommit is also off inside atomic.
        may_reopen = connection is not None and self.autocommit
        if may_reopen and session_state.may_be_lost(connection):
            self._reopen_if_lost(connection)

    def _reopen_if_lost(self, connection: Connection) -> None:
        target = self.get_target()
        if not target.reconnect or not session_state.is_lost(connection):
            return
        if marks := session_state.marks(connection):
            # The connection stays unusable until the program closes it, as on Django's
            # own backend: code that ignores the error must not run without the state.
            cause = OperationalError("the connection is closed")
            failure = failures_by_id()["session-lost"]
            raise connect_error(target, cause, failure, lost=", ".join(marks))
        started = time.monotonic()
        self.close()
        self.ensure_connection()
        events.session_reopened(
            target.alias, target.endpoint, seconds=time.monotonic() - started
        )

    def drop_inherited_connection(self) -> None:
        """
        Drop the connection inherited from the parent, without touching its socket.

        Inside atomic the transaction is lost too, and Django rejects further queries.
        """
        if self.connection is not None:
            _inherited.append(self.connection)
            self.connection = None
            self.closed_in_transaction = self.in_atomic_block

    def close_if_unusable_or_obsolete(self) -> None:
        """
        Close a connection that is too old, broken, or closed by the server.

        A connection that has reached only the age cap stays open while no new
        credential is available, because the server checks expiry only at login.
        """
        fork.detect_fork()
        capped_close_at = self.close_at
        if self._must_outlive_cap():
            self.close_at = self._close_at_by_settings
        super().close_if_unusable_or_obsolete()
        if self.connection is None:
            return
        self.close_at = capped_close_at
        is_idle = not self.in_atomic_block
        if is_idle and is_readable(self.connection) and not self.is_usable():
            self.close()

    def _configure_role(self, connection: Connection) -> bool:
        # Django's method composes this SQL on a cursor of the wrapper. In a worker of
        # the pool, that would wait for a connection from the same pool.
        role = self.settings_dict["OPTIONS"].get("assume_role")
        if not role:
            return False
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql.SQL("SET ROLE {}").format(sql.Literal(role)))
        except (DataError, ProgrammingError) as exc:
            raise connect_error(
                self.get_target(), exc, failures_by_id()["setup-failed"], seen=exc
            ) from exc
        return True

    def check_settings(self) -> None:
        """Validate the settings before Django uses them; raises SettingsError."""
        super().check_settings()
        self.get_target()

    def _startup_options(self, target: Target) -> str:
        """Return libpq's *options* with the time zone, which saves a round trip."""
        options = target.libpq_options
        name = self.timezone_name
        if not name or not takes_timezone(target):
            return options
        escaped = name.replace("\\", "\\\\").replace(" ", "\\ ")
        return f"{options} {TIMEZONE_OPTION}{escaped}".strip()

    def _cap_age(self, lifetime: Lifetime | None) -> None:
        """Lower close_at to the age cap; connect() has set it from CONN_MAX_AGE."""
        self._close_at_by_settings, self._has_warned = self.close_at, False
        if lifetime is None:
            return
        left = (lifetime.expires_at - utc_now()).total_seconds()
        cap = time.monotonic() + left * random.uniform(MIN_AGE_SHARE, MAX_AGE_SHARE)  # noqa: S311 - no secret.
        if self.close_at is None or self.close_at > cap:
            self.close_at = cap

    def _must_outlive_cap(self) -> bool:
        """
        Return whether the age cap is reached, but no new credential is available.

        In that case also starts a refresh, and logs one warning per connection.
        """
        lifetime = self.lifetime
        is_due = self.close_at is not None and time.monotonic() >= self.close_at
        if (
            lifetime is None
            or not is_due
            or self.close_at == self._close_at_by_settings
        ):
            return False
        target = self.get_target()
        credentials = access_to(target).credentials
        if credentials.get_cached() is not None:
            return False
        credentials.refresh_soon()
        # After an idle hour the refresh has only just started: there is no error yet.
        if credentials.last_exception is not None and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s: no new credential is available (%s), so a connection is kept "
                "beyond the age limit of its credential",
                target.label,
                credentials.last_error,
                extra={
                    "lakebase_alias": target.alias,
                    "lakebase_endpoint": target.endpoint,
                },
            )
        return True


def _application_name() -> str:
    """Return the default application name, shown in pg_stat_activity."""
    project = (settings.SETTINGS_MODULE or "django").partition(".")[0]
    return f"{project} (django_lakebase)"


class DatabaseWrapper(LakebaseMixin, PostgreSQLDatabaseWrapper):
    """Django's PostgreSQL backend, logging in with Databricks credentials."""


@fork.run_in_child
def _drop_inherited_connections() -> None:
    for wrapper in list(_connected):
        wrapper.drop_inherited_connection()
