"""
The database engine that Django loads for ``"ENGINE": "django_lakebase"``.

A thin layer over Django's PostgreSQL backend. It fills the settings from the
environment, and replaces the password with a credential from the workspace.
"""

import time
import weakref
from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql.base import (
    DatabaseWrapper as PostgreSQLDatabaseWrapper,
)
from psycopg import DataError, OperationalError, ProgrammingError, errors, sql

from . import events, process
from .auth.registry import endpoint_of
from .client import DatabaseClient
from .config.cache import Resolved, TargetCache
from .config.fill import fill_settings
from .config.target import Target
from .connect import session_state
from .connect.connector import Connector, attempt
from .connect.errors import connect_error
from .connect.liveness import (
    Connection,
    Lifetime,
    cap_age,
    has_ended,
    lifetime_of,
    must_be_kept,
)
from .connect.params import Params, lazy_params, startup_timezone
from .creation import DatabaseCreation
from .exceptions import ExplainedError, SettingsError
from .failures.classify import failures_by_id
from .failures.render import build_error
from .schema import (
    DatabaseIntrospection,
    DatabaseSchemaEditor,
    create_schema,
    public_first,
)

if TYPE_CHECKING:
    from .pool import LakebasePool

    Base = PostgreSQLDatabaseWrapper
else:
    # A mixin: django_lakebase.postgis combines it with another backend.
    Base = object

# The version of PostgreSQL from which memberships have the options INHERIT and SET.
MEMBERSHIP_OPTIONS_VERSION = 160000

# A forked child must not use the connections of these wrappers, because two processes
# on one socket read each other's responses, and must not close them, because that would
# end the parent's session. The child keeps such connections in _inherited.
_wrappers: "weakref.WeakSet[LakebaseMixin]" = weakref.WeakSet()
_inherited: list[Connection] = []


def membership_options(version: int) -> str:
    """
    Return the end of a GRANT whose member may use a role's privileges and switch to it.

    *version* is the server's, as in ``server_version_num``.
    """
    return (
        " WITH INHERIT TRUE, SET TRUE" if version >= MEMBERSHIP_OPTIONS_VERSION else ""
    )


class LakebaseMixin(Base):
    """A mixin that gives a PostgreSQL backend a current credential per connection."""

    client_class = DatabaseClient
    creation_class = DatabaseCreation

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._target_cache = TargetCache()
        # Set while connecting, so that the settings are compared only once.
        self._resolved: Resolved | None = None
        # The pool that the connection was taken from.
        self._borrowed_from: LakebasePool | None = None
        self._close_at_by_settings: float | None = None
        fill_settings(self.settings_dict, self.alias)
        _wrappers.add(self)

    def get_connection_params(self) -> Params:
        """
        Return psycopg's parameters; the token is fetched when psycopg uses it.

        Does no I/O, because Django calls this at every checkout from a pool. Raises
        SettingsError, an ImproperlyConfigured.
        """
        resolved = self._resolve()
        timezone = startup_timezone(resolved.target, self.timezone_name)
        # Django's parameters also depend on USE_TZ, without which *timezone* is None.
        key = "params", timezone, self.timezone
        params: Params | None = resolved.derived.get(key)
        if params is None:
            django_params = super().get_connection_params()
            options = self.settings_dict["OPTIONS"]
            params = lazy_params(resolved.target, django_params, options, timezone)
            resolved.derived[key] = params
        return params.copy()

    def get_target(self) -> Target:
        """Return the Target of the settings and the environment; does no I/O."""
        return self._resolve().target

    def _resolve(self) -> Resolved:
        cache, settings_dict = self._target_cache, self.settings_dict
        return self._resolved or cache.get(settings_dict, self.alias)

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
        self._close_at_by_settings = self.close_at
        # Django's method and _close() use the same pool, even if the settings change.
        self._borrowed_from = self._find_pool()
        if self._borrowed_from is None:
            connection = Connector(self.get_target(), conn_params, connect).run()
            self.close_at = cap_age(connection, self.close_at)
            return connection
        outcome = attempt(connect, conn_params)
        if isinstance(outcome, BaseException):
            self._borrowed_from = None
            raise outcome
        return outcome

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]
        finally:
            self._borrowed_from = None

    @property
    def pool(self) -> "LakebasePool | None":
        """The pool of this alias, process and Target; None without OPTIONS["pool"]."""
        return self._borrowed_from or self._find_pool()

    def _find_pool(self) -> "LakebasePool | None":
        # Django asks before each query, so nothing is resolved without a pool.
        options = self.settings_dict["OPTIONS"]
        has_pool = not isinstance(options, dict) or options.get("pool")
        if self.alias == NO_DB_ALIAS or not has_pool:
            return None
        resolved = self._resolve()
        key = "pool", self.timezone_name
        pool: LakebasePool | None = resolved.derived.get(key)
        if pool is None or not pool.is_current:
            pool = resolved.derived[key] = self._make_pool(resolved.target)
        return pool

    def _make_pool(self, target: Target) -> "LakebasePool":
        try:
            from .pool import pool_for
        except ImportError as exc:
            failure = failures_by_id()["pool-package-missing"]
            raise build_error(SettingsError, failure, target.label, {}) from exc
        return pool_for(self, target)

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
        """
        Open a connection, set it up, and start tracking its session.

        Raises LakebaseError, or SettingsError before Django uses the settings.
        """
        self._resolved = self._resolve()
        try:
            super().connect()
        finally:
            self._resolved = None
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
        process.detect_fork()
        # Django also calls this while it sets up a new connection.
        if self.connection is None or self._resolved is not None:
            return
        super().close_if_health_check_failed()
        # Django's check may have closed it.
        connection = self.connection
        # Autocommit is also off inside atomic.
        may_reopen = connection is not None and self.autocommit
        if may_reopen and session_state.may_be_lost(connection):
            self._reopen_if_lost(connection)

    def _reopen_if_lost(self, connection: Connection) -> None:
        target = self.get_target()
        if not target.reconnect or not has_ended(connection):
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
            self,
            target.alias,
            endpoint_of(target),
            seconds=time.monotonic() - started,
        )

    def drop_inherited_connection(self) -> None:
        """
        Drop the connection inherited from the parent, without touching its socket.

        Inside atomic the transaction is lost too, and Django rejects further queries.
        """
        if self.connection is not None:
            _inherited.append(self.connection)
            self.connection = self._borrowed_from = None
            self.closed_in_transaction = self.in_atomic_block

    def close_if_unusable_or_obsolete(self) -> None:
        """
        Close a connection that is too old, broken, or closed by the server.

        A connection that has reached only the age cap stays open while no new
        credential is available, because the server checks expiry only at login.
        """
        process.detect_fork()
        close_at = self.close_at
        is_due = close_at is not None and time.monotonic() >= close_at
        is_capped = is_due and close_at != self._close_at_by_settings
        if is_capped and must_be_kept(self.connection, self.get_target()):
            self.close_at = self._close_at_by_settings
        super().close_if_unusable_or_obsolete()
        if self.connection is None:
            return
        self.close_at = close_at
        if not self.in_atomic_block and has_ended(self.connection):
            self.close()

    def prepare_database(self) -> None:
        """
        Create the project's schema if it is missing; Django calls this to migrate.

        Raises LakebaseError if the user may neither use nor create the schema.
        """
        if not self.get_target().schema:
            super().prepare_database()
            return
        create_schema(self)
        # Django's PostGIS backend creates its extension.
        with public_first(self):
            super().prepare_database()

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
            raise self._role_error(connection, role, exc) from exc
        return True

    def _role_error(
        self, connection: Connection, role: str, exc: Exception
    ) -> ExplainedError:
        failure = "setup-failed"
        if isinstance(exc, errors.InvalidParameterValue):
            failure = "assume-role-missing"
        elif isinstance(exc, errors.InsufficientPrivilege):
            failure = "assume-role-denied"
        return connect_error(
            self.get_target(),
            exc,
            failures_by_id()[failure],
            seen=exc,
            name=role,
            user=connection.info.user,
            membership_options=membership_options(connection.info.server_version),
        )


class DatabaseWrapper(LakebaseMixin, PostgreSQLDatabaseWrapper):
    """Django's PostgreSQL backend, logging in with Databricks credentials."""

    SchemaEditorClass = DatabaseSchemaEditor
    introspection_class = DatabaseIntrospection


@process.run_in_child
def _drop_inherited_connections() -> None:
    for wrapper in list(_wrappers):
        wrapper.drop_inherited_connection()
