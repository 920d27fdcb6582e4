"""The step ``migrations`` of ``lakebase_check --deploy``, and the plan of `migrate`."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, Error, router
from django.db.migrations import Migration
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from django_lakebase.base import LakebaseMixin
from django_lakebase.failures.classify import scrub
from django_lakebase.roles.change import listed

from .session import Session
from .step import Finding, Outcome, Status

# Migrations that a detail names.
SHOWN = 3
# Recorded as a migration while lakebase_migrate applies others: it remains if the
# process is killed between the last migration and the end of post_migrate.
UNFINISHED = ("lakebase_migrate", "post_migrate")

# A table in a schema without USAGE is not visible.
_IS_READABLE = """
SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = %(table)s
    AND n.nspname = coalesce(nullif(%(schema)s, ''), current_schema(), 'public')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All migrations in their order, and those that `migrate` would apply."""

    loader: MigrationLoader
    migrations: list[Migration]
    pending: list[Migration]


@dataclass(frozen=True, slots=True)
class PlanError(Exception):
    """Raised if the migrations cannot be read, with the *finding* that explains it."""

    finding: Finding


def read_plan(session: Session) -> Plan:
    """Read the migrations and which of them are applied; raises PlanError."""
    wrapper, table = session.wrapper, MigrationRecorder.Migration._meta.db_table
    values = {"table": table, "schema": wrapper.get_target().schema}
    if (False,) in session.fetch(_IS_READABLE, values):
        raise PlanError(
            Finding(
                id="migrations-unreadable",
                status=Status.WARN,
                detail=f'the role may not read "{table}", so it is not known which '
                "migrations are applied",
                hint="Correct the findings of the steps privileges and ownership.",
            )
        )
    return load_plan(wrapper)


def load_plan(wrapper: LakebaseMixin | None) -> Plan:
    """Read the migrations; without *wrapper*, none is applied. Raises PlanError."""
    try:
        executor = MigrationExecutor(wrapper)
    except Error:
        raise
    # A file of a migration may raise anything, for example after a merge.
    except Exception as exc:
        reason = scrub(f"{type(exc).__name__}: {exc}")
        raise PlanError(
            Finding(
                id="migrations-invalid",
                status=Status.FAIL,
                detail=f"Django cannot load the migrations: {reason}",
                hint="Correct the files of the migrations, or their dependencies.",
            )
        ) from exc
    targets = executor.loader.graph.leaf_nodes()
    full = executor.migration_plan(targets, clean_start=True)
    return Plan(
        loader=executor.loader,
        migrations=[migration for migration, _ in full],
        pending=[migration for migration, _ in executor.migration_plan(targets)],
    )


def check_migrations(session: Session) -> Outcome:
    """Check that the migrations can be applied, and whether all of them are."""
    alias = session.wrapper.alias
    models = apps.get_models(include_auto_created=True)
    if not any(router.allow_migrate_model(alias, model) for model in models):
        return Outcome("the database routers migrate no model in this database")
    try:
        plan = read_plan(session)
    except PlanError as exc:
        return Outcome("", (exc.finding,))
    # If migrate refuses to run, it is no hint.
    findings = tuple(_find_errors(session, plan)) or tuple(
        _find_differences(alias, plan)
    )
    count = len(plan.migrations)
    return Outcome(f"all {count} migrations are applied", findings)


def _find_errors(session: Session, plan: Plan) -> Iterator[Finding]:
    """Yield the reasons for which `migrate` refuses to run."""
    try:
        plan.loader.check_consistent_history(session.wrapper)
    except InconsistentMigrationHistory as exc:
        yield Finding(
            id="migrations-inconsistent",
            status=Status.FAIL,
            detail=str(exc).removesuffix("."),
            hint="migrate refuses to run. If what the dependency creates exists, add "
            "its row to django_migrations. If not, drop what the migrations that "
            "depend on it have created, and delete their rows.",
        )
    for label, names in sorted(plan.loader.detect_conflicts().items()):
        yield Finding(
            id="migrations-conflict",
            status=Status.FAIL,
            detail=f"the migrations {', '.join(sorted(names))} of {label} are both the "
            "last one",
            hint=f"Run: python manage.py makemigrations --merge {label}",
        )


def _find_differences(alias: str, plan: Plan) -> Iterator[Finding]:
    """Yield the differences between the code and the database."""
    option = "" if alias == DEFAULT_DB_ALIAS else f" --database {alias}"
    command = f"Run: python manage.py lakebase_migrate{option}"
    applied = plan.loader.applied_migrations
    if plan.pending:
        names = _name([(m.app_label, m.name) for m in plan.pending])
        yield Finding(
            id="migrations-pending",
            status=Status.WARN,
            detail=f"pending migrations: {len(plan.pending)} of "
            f"{len(plan.migrations)} ({names})",
            hint=command,
        )
    elif UNFINISHED in applied:
        yield Finding(
            id="migrations-unfinished",
            status=Status.WARN,
            detail="lakebase_migrate has not finished: permissions or content types "
            "may be missing",
            hint=command,
        )
    # Rows of apps that are not installed belong to apps that were removed, or to
    # another project. They do no harm.
    known = set(plan.loader.disk_migrations)
    for migration in plan.loader.disk_migrations.values():
        known.update((label, name) for label, name in migration.replaces)
    installed = plan.loader.migrated_apps
    unknown = sorted(key for key in applied if key[0] in installed and key not in known)
    if unknown:
        # The code may fail with tables that are newer than it.
        yield Finding(
            id="migrations-unknown",
            status=Status.WARN,
            detail="the database has migrations that this version of the code does "
            f"not have: {_name(unknown)}",
            hint="Deploy the code that contains them, or undo them with it before you "
            "deploy older code. If they were squashed and deleted, run: "
            f"python manage.py migrate {unknown[0][0]} --prune{option}",
        )


def _name(keys: list[tuple[str, str]]) -> str:
    return listed([f"{label}.{name}" for label, name in keys], SHOWN)
