"""``manage.py lakebase_migrate``: ``migrate`` for processes that start together."""

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.core.management.commands import migrate
from django.db import DatabaseError, InterfaceError, OperationalError, connections
from django.db.migrations import Migration
from django.db.migrations.exceptions import MigrationSchemaMissing
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.transaction import atomic

from django_lakebase.config.target import is_pooled_host
from django_lakebase.diagnosis.migrations import UNFINISHED
from django_lakebase.exceptions import ExplainedError
from django_lakebase.failures.classify import chain, classify
from django_lakebase.failures.failure import Source
from django_lakebase.failures.render import original_message, summary_and_hint
from django_lakebase.management.migration_lock import MigrationLock
from django_lakebase.management.wait import Pauses, seconds

# The SQLSTATE of a lock timeout.
LOCK_NOT_AVAILABLE = "55P03"
# Seconds for which --lock-timeout retries a migration: less than the 10 minutes after
# which Databricks Apps ends an app that does not listen, without showing a reason.
RETRIED_FOR = 300.0
# Failures to explain: of migrations, not of connections.
DENIED = ("schema-denied", "owner-required", "privilege-denied")


class Command(migrate.Command):
    """Django's ``migrate`` under a lock, and only if a migration is pending."""

    help = (
        "Runs migrate if a migration is pending, in one process at a time. Processes "
        "that start together can all run this command: one migrates, and the others "
        "wait and then find nothing to do."
    )

    # The migration that is being applied, and the last statement that failed.
    _running: Migration | None = None
    _failed_statement = ""

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options, after those of ``migrate``."""
        super().add_arguments(parser)
        parser.add_argument(
            "--wait",
            type=seconds,
            default=0.0,
            metavar="SECONDS",
            help="Retry for this long if connecting fails for a reason that may clear "
            "on its own, such as an endpoint that is waking; for container startup.",
        )
        parser.add_argument(
            "--lock-timeout",
            type=seconds,
            default=0.0,
            metavar="SECONDS",
            help="PostgreSQL's lock_timeout for the migrations. A migration that waits "
            "longer for a lock is rolled back, so that other queries do not queue up "
            "behind it, and retried after a pause, for up to "
            f"{RETRIED_FOR / 60:.0f} minutes. 0 (default) leaves lock_timeout "
            "unchanged.",
        )

    def get_check_kwargs(self, options: dict[str, Any]) -> Any:
        """Connect before the system checks: some of them need the server's version."""
        with self._explained_errors():
            self._set_up(options)
            self._connect()
        return super().get_check_kwargs(options)

    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate if a migration is pending; raises CommandError."""
        with self._explained_errors():
            self._set_up(options)
            self._connect()
            if options["plan"] or options["check_unapplied"]:
                super().handle(*args, **options)
                return
            if self._is_pending():
                lock = MigrationLock(self._connection, options["lock_timeout"])
                try:
                    lock.acquire(self._connect, self._report_holder)
                    if self._is_pending():
                        self._migrate(lock, *args, **options)
                        return
                finally:
                    lock.release()
            self._write("No migrations to apply.")

    def migration_progress_callback(
        self, action: str, migration: Migration | None = None, fake: bool = False
    ) -> None:
        """Verify before each migration that the session still holds the lock."""
        if action in ("apply_start", "unapply_start"):
            if self._lock is not None and self._lock.is_lost():
                raise CommandError(self._lost)
            self._running = migration
        elif action in ("apply_success", "unapply_success"):
            self._running = None
        super().migration_progress_callback(action, migration, fake)

    def _set_up(self, options: dict[str, Any]) -> None:
        self._options = options
        self._label = f'DATABASES["{options["database"]}"]'
        self._lost = (
            f"{self._label}: the session that ran the migrations and held the lock has "
            "ended: the server was restarted or ended the session, the network failed, "
            "or a migration closed the connection. Run the command again. If a "
            "migration that is not atomic was running, first check which of its "
            "operations have been applied."
        )
        # The role of the connection, as soon as there was one.
        self._user: str | None = None
        self._lock: MigrationLock | None = None
        self._connection = connections[options["database"]]
        if self._connection.vendor != "postgresql":
            engine = self._connection.settings_dict["ENGINE"]
            raise CommandError(
                f'{self._label} uses the ENGINE "{engine}"; lakebase_migrate requires '
                '"django_lakebase" or another engine for PostgreSQL. Run migrate '
                "instead."
            )
        host = self._connection.settings_dict["HOST"]
        if is_pooled_host(host):
            raise CommandError(
                f'{self._label}: the host "{host}" is a pooler, whose sessions cannot '
                "hold a lock. Set HOST (PGHOST) to the direct host of the endpoint "
                "(without -pooler)."
            )
        if self._connection.in_atomic_block:
            raise CommandError(
                f"{self._label}: lakebase_migrate cannot run inside a transaction."
            )

    def _write(self, line: str) -> None:
        if self._options["verbosity"]:
            self.stdout.write(line)
            self.stdout.flush()

    def _report_holder(self, holder: str) -> None:
        self._write(
            f"{self._label}: waiting for another process that runs migrations: "
            f"{holder or 'a session that has just ended'}."
        )

    def _connect(self) -> None:
        """Open the connection unless it is open; retry for ``--wait`` seconds."""
        pauses = Pauses(time.monotonic() + self._options["wait"])
        while True:
            try:
                self._connection.ensure_connection()
            except OperationalError as exc:
                if isinstance(exc, ExplainedError):
                    failure, reason = exc.failure, exc.summary
                else:
                    failure = classify(exc, Source.SERVER, native=True)
                    reason = original_message(exc)
                left = pauses.left()
                if not left or not failure.is_transient:
                    raise
            else:
                self._user = self._connection.connection.info.user
                return
            self._write(f"{self._label}: {reason} Retrying for another {left:.0f} s.")
            pauses.sleep()

    def _is_pending(self) -> bool:
        """Return whether ``migrate`` would change anything."""
        if self._options["app_label"] or self._options["run_syncdb"]:
            return True
        executor = MigrationExecutor(self._connection)
        loader = executor.loader
        if loader.detect_conflicts():
            return True  # Django's command reports them.
        if UNFINISHED in loader.applied_migrations:
            return True
        if loader.replacements:
            # The loader counts a squashed migration as applied if all those that it
            # replaces are, but only migrate records it.
            recorded = executor.recorder.applied_migrations()
            if loader.applied_migrations.keys() - recorded.keys():
                return True
        return bool(executor.migration_plan(loader.graph.leaf_nodes()))

    def _migrate(self, lock: MigrationLock, *args: Any, **options: Any) -> None:
        """Run Django's command under *lock*; retry it after a lock timeout."""
        self._lock, deadline = lock, 0.0
        while True:
            self._running, self._failed_statement = None, ""
            try:
                with self._connection.execute_wrapper(self._remember_failed):
                    self._run(*args, **options)
            except (OperationalError, InterfaceError) as exc:
                if lock.is_lost():
                    raise CommandError(self._lost) from exc
                if not options["lock_timeout"] or not _has(exc, LOCK_NOT_AVAILABLE):
                    raise
                deadline = deadline or time.monotonic() + RETRIED_FOR
                self._pause_after_timeout(lock, exc, deadline)
            else:
                return

    def _run(self, *args: Any, **options: Any) -> None:
        if options["prune"]:  # Sends no signal.
            super().handle(*args, **options)
            return
        self._connection.prepare_database()
        recorder = MigrationRecorder(self._connection)
        recorder.record_applied(*UNFINISHED)
        super().handle(*args, **options)
        recorder.record_unapplied(*UNFINISHED)

    def _remember_failed(
        self, execute: Any, sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        try:
            return execute(sql, params, many, context)
        except OperationalError:
            self._failed_statement = str(sql)
            raise

    def _pause_after_timeout(
        self, lock: MigrationLock, exc: BaseException, deadline: float
    ) -> None:
        """Roll back and pause; raise CommandError if it must not be retried."""
        timeout, running = self._options["lock_timeout"], self._running
        text = f'The migration "{running}"' if running else "A statement"
        text = f"{self._label}: {text} did not get a lock within {timeout:g} s."
        if running is not None and not running.atomic:
            raise CommandError(
                f"{text} The migration is not atomic: some of its operations may have "
                "been applied, so the command does not retry it. Check which, undo "
                "them (a failed CREATE INDEX CONCURRENTLY leaves an invalid index, "
                "which must be dropped), and run the command again."
            ) from exc
        if self._connection.in_atomic_block:
            # Django's schema editor does not leave its transaction if a deferred
            # statement fails, such as one for a foreign key.
            atomic(self._connection.alias).__exit__(type(exc), exc, None)
        users = "; ".join(lock.users_of(self._failed_statement))
        text += f" These sessions use its tables: {users}." if users else ""
        pause = timeout * random.uniform(0.5, 1.5)  # noqa: S311 - no secret.
        if time.monotonic() + pause > deadline:
            raise CommandError(
                f"{text} The command has retried for {RETRIED_FOR:.0f} s. End long "
                "transactions on these tables (SELECT pg_terminate_backend(...), with "
                "the number of a session), or increase --lock-timeout."
            ) from exc
        # The line "Applying ..." has no end yet.
        self._write(f"\n{text} Trying again in {pause:.1f} s.")
        time.sleep(pause)

    @contextmanager
    def _explained_errors(self) -> Iterator[None]:
        """Raise CommandError, which Django shows without a traceback, if known."""
        try:
            yield
        except ExplainedError as exc:
            raise CommandError(str(exc)) from exc
        except DatabaseError as exc:
            failure = classify(exc, Source.SERVER)
            found = re.search(failure.pattern, str(exc))
            if failure.id in DENIED and found:
                role = self._connection.settings_dict["OPTIONS"].get("assume_role")
                facts = {"user": role or self._user, **found.groupdict()}
                summary, hint = summary_and_hint(failure, facts)
                raise CommandError(f"{self._label}: {summary} {hint}") from exc
            if isinstance(exc, MigrationSchemaMissing) or self._user is None:
                raise CommandError(f"{self._label}: {original_message(exc)}") from exc
            raise


def _has(exc: BaseException, sqlstate: str) -> bool:
    """Return whether *exc* or a cause of it is an error of the server's *sqlstate*."""
    return any(getattr(link, "sqlstate", None) == sqlstate for link in chain(exc))
