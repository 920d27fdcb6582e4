"""
The database engine: what Django loads for ``"ENGINE": "django_lakebase"``.

A thin layer over Django's PostgreSQL backend. The settings are filled from the
environment, the password is a credential of the workspace, and Django does the rest.
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

from . import config, events, forks, libpq, session
from .client import DatabaseClient
from .connection import (
    Connection,
    LazyValue,
    Lease,
    Params,
    attempt,
    is_readable,
    lazy_params,
    lease_of,
    refusal,
)
from .creation import DatabaseCreation
from .credentials import utc_now
from .errors import SettingsError, explained, table
from .opening import TIMEZONE_OPTION, Opening, takes_timezone
from .reading import Reading
from .workspace import access_to

if TYPE_CHECKING:
    from .pool import LakebasePool

    Base = PostgreSQLDatabaseWrapper
else:
    # A mixin: django_lakebase.postgis puts it over another backend.
    Base = object

logger = logging.getLogger("django_lakebase")

# Whose connections a forked child must not use: two processes on one socket read each
# other's answers. Nor may it close them, for that would end the parent's sessions.
_connected: "weakref.WeakSet[LakebaseMixin]" = weakref.WeakSet()
_of_a_parent: list[Connection] = []

# Half-open connections end after about a minute instead of two hours; seconds, and
# milliseconds for tcp_user_timeout.
KEEPALIVES = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30000,
}
# The share of its credential's life after which a connection is replaced, at random:
# else those of all processes would end in the same second.
SHORTEST_SHARE, LONGEST_SHARE = 0.6, 0.9


class LakebaseMixin(Base):
    """Gives a PostgreSQL backend of Django a fresh credential for each connection."""

    client_class = DatabaseClient
    creation_class = DatabaseCreation

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading = Reading()
        self._lender: LakebasePool | None = None
        self._is_borrowing = False
        config.fill(self.settings_dict, self.alias)
        self._close_at_by_settings: float | None = None
        self._has_warned = False

    def get_connection_params(self) -> Params:
        """
        Return what psycopg connects with; the password asks for a token when used.

        No I/O, for Django calls this at every checkout from a pool. Raises
        SettingsError, an ImproperlyConfigured.
        """
        target = self.get_target()
        params: Params = super().get_connection_params()
        for name in config.OWN_OPTIONS:
            params.pop(name, None)
        params |= libpq.connection_params(
            target, self.settings_dict["OPTIONS"], self._startup_options(target)
        )
        if password := params.get("password"):
            # Shown by no debug page: str() is psycopg's, not a person's.
            params["password"] = LazyValue("password", target, lambda _: password)
        named = {"fallback_application_name": _application_name()}
        return {**KEEPALIVES, **named, **params, **lazy_params(target)}

    def get_target(self) -> config.Target:
        """Return where the settings and the environment lead; no I/O."""
        return self._reading.target(self.settings_dict, self.alias)

    @property
    def lease(self) -> Lease | None:
        """When the open connection was opened and its credential expires, in UTC."""
        connection = self.connection
        return None if connection is None else lease_of(connection)

    def get_new_connection(self, conn_params: Params) -> Connection:
        """Open a connection, retrying within ``OPTIONS["connect_budget"]`` seconds."""
        opener = super().get_new_connection
        _connected.add(self)
        self._lender = self.pool
        if self._lender is not None:
            self._is_borrowing = True
            try:
                outcome = attempt(opener, conn_params)
            finally:
                self._is_borrowing = False
            if isinstance(outcome, BaseException):
                raise outcome
            self._cap_age(None)
            return outcome
        connection = Opening(self.get_target(), conn_params, opener).run()
        self._cap_age(lease_of(connection))
        return connection

    @property
    def pool(self) -> "LakebasePool | None":
        """The pool of this alias, process and Target; None without OPTIONS["pool"]."""
        is_in_hand = self._is_borrowing or self.connection is not None
        if is_in_hand and self._lender is not None:
            # It goes back to where it came from, whatever the settings say by now.
            return self._lender
        if not isinstance(self.settings_dict["OPTIONS"], dict):
            self.get_target()  # Raises what is wrong with them.
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        target = self.get_target()
        try:
            from .pool import LakebasePool, pool_for
        except ImportError as exc:
            failure = table()["pool-package-missing"]
            raise explained(SettingsError, failure, target.label, {}) from exc

        def make() -> LakebasePool:
            from psycopg_pool import ConnectionPool

            # Asked here as Django does: an open pool is not refused afterwards.
            if self.settings_dict.get("CONN_MAX_AGE", 0) != 0:
                raise explained(SettingsError, table()["pool-age"], target.label, {})
            health_checks = self.settings_dict.get("CONN_HEALTH_CHECKS")
            own = {} if options is True else dict(options)
            checks = ConnectionPool.check_connection if health_checks else None
            # A wrapper that never connects: the pool would keep this one alive, and
            # with it the connection of a thread that has ended.
            wrapper: Any = type(self)(self.settings_dict, self.alias)
            return LakebasePool(
                target,
                self.get_connection_params(),
                wrapper._configure_connection,  # noqa: SLF001
                {"check": checks, **own},
            )

        return pool_for(self.alias, (target, self.timezone_name), make)

    def pool_stats(self) -> dict[str, int]:
        """Return psycopg_pool's figures of this alias; makes no pool to do so."""
        if not self.settings_dict["OPTIONS"].get("pool"):
            return {}
        from .pool import stats_of

        return stats_of(self.alias)

    def close_pool(self) -> None:
        """Close this process's pools of the alias; makes none to do so."""
        if self.settings_dict["OPTIONS"].get("pool"):
            from .pool import close_pools

            close_pools(self.alias)

    def connect(self) -> None:
        """Open a connection and set it up; what it holds later is noted."""
        super().connect()
        if self.connection is not None:
            session.observe(self.connection)

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a cursor; a named one, on the server's side, is observed too."""
        cursor = super().create_cursor(name)
        if name is not None:
            # The class is one of Django's that no factory of the connection makes.
            cursor.__class__ = session.noting(type(cursor))
        return cursor

    def close_if_health_check_failed(self) -> None:
        """
        Replace a connection that was lost: what opening a cursor does first.

        Raises LakebaseError where the session that was lost held state.
        """
        forks.notice()
        super().close_if_health_check_failed()
        connection = self.connection
        # Autocommit is off inside atomic, too.
        may_reopen = connection is not None and self.autocommit
        if may_reopen and session.may_be_lost(connection):
            self._reopen_if_lost(connection)

    def _reopen_if_lost(self, connection: Connection) -> None:
        target = self.get_target()
        if not target.reconnect or not session.is_lost(connection):
            return
        if marks := session.marks(connection):
            # It stays lost until the program closes it, as on Django's own backend:
            # code that ignores this error must not go on with a session without them.
            cause = OperationalError("the connection is closed")
            failure = table()["session-lost"]
            raise refusal(target, cause, failure, lost=", ".join(marks))
        started = time.monotonic()
        self.close()
        self.ensure_connection()
        events.session_reopened(
            target.alias, target.endpoint, seconds=time.monotonic() - started
        )

    def leave_to_parent(self) -> None:
        """
        Forget the connection that a fork has brought here; its socket is not touched.

        A transaction stays with it: inside atomic, Django then refuses to go on.
        """
        if self.connection is not None:
            _of_a_parent.append(self.connection)
            self.connection = None
            self.closed_in_transaction = self.in_atomic_block

    def close_if_unusable_or_obsolete(self) -> None:
        """
        Close a connection that is too old, broken, or cut by the server.

        One that is too old only by the cap stays while no other credential can be
        had: the server checks expiry at login alone.
        """
        forks.notice()
        own = self.close_at
        if self._outlives_cap():
            self.close_at = self._close_at_by_settings
        super().close_if_unusable_or_obsolete()
        if self.connection is None:
            return
        self.close_at = own
        is_idle = not self.in_atomic_block
        if is_idle and is_readable(self.connection) and not self.is_usable():
            self.close()

    def _configure_role(self, connection: Connection) -> bool:
        # Django composes it on a cursor of the wrapper, which inside a pool's worker
        # waits for the pool.
        role = self.settings_dict["OPTIONS"].get("assume_role")
        if not role:
            return False
        try:
            with connection.cursor() as cursor:
                cursor.execute(sql.SQL("SET ROLE {}").format(sql.Literal(role)))
        except (DataError, ProgrammingError) as exc:
            raise refusal(
                self.get_target(), exc, table()["setup-failed"], seen=exc
            ) from exc
        return True

    def check_settings(self) -> None:
        """Refuse settings before Django computes with them; raises SettingsError."""
        super().check_settings()
        self.get_target()

    def _startup_options(self, target: config.Target) -> str:
        """Return libpq's *options*, with the time zone: it saves a query."""
        options = target.libpq_options
        name = self.timezone_name
        if not name or not takes_timezone(target):
            return options
        escaped = name.replace("\\", "\\\\").replace(" ", "\\ ")
        return f"{options} {TIMEZONE_OPTION}{escaped}".strip()

    def _cap_age(self, lease: Lease | None) -> None:
        """Lower close_at, which connect() has just set from CONN_MAX_AGE."""
        self._close_at_by_settings, self._has_warned = self.close_at, False
        if lease is None:
            return
        left = (lease.expires_at - utc_now()).total_seconds()
        cap = time.monotonic() + left * random.uniform(SHORTEST_SHARE, LONGEST_SHARE)  # noqa: S311 - no secret.
        if self.close_at is None or self.close_at > cap:
            self.close_at = cap

    def _outlives_cap(self) -> bool:
        """Whether the cap has come, and no other credential is at hand."""
        lease = self.lease
        is_due = self.close_at is not None and time.monotonic() >= self.close_at
        if lease is None or not is_due or self.close_at == self._close_at_by_settings:
            return False
        target = self.get_target()
        credentials = access_to(target).credentials
        if credentials.ready() is not None:
            return False
        credentials.renew_soon()
        # After an idle hour nobody has asked yet, and there may be no trouble.
        if credentials.error is not None and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s: no new credential can be had (%s), so a connection is kept longer "
                "than its credential's life allows for",
                target.label,
                credentials.trouble,
                extra={
                    "lakebase_alias": target.alias,
                    "lakebase_endpoint": target.endpoint,
                },
            )
        return True


def _application_name() -> str:
    """Return what the server's activity view calls us, unless the user says more."""
    project = (settings.SETTINGS_MODULE or "django").partition(".")[0]
    return f"{project} (django_lakebase)"


class DatabaseWrapper(LakebaseMixin, PostgreSQLDatabaseWrapper):
    """Django's PostgreSQL backend, logging in with Databricks credentials."""


@forks.in_child
def _leave_all_to_parent() -> None:
    for wrapper in list(_connected):
        wrapper.leave_to_parent()
