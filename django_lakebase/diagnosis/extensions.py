"""The step ``extensions`` of ``lakebase_check --deploy``."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.contrib.postgres.operations import CreateExtension
from django.db import router
from django.db.migrations import RunSQL, SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation
from psycopg.rows import class_row

from django_lakebase.roles.statements import quoted

from .altered_tables import IGNORED, NAME
from .migrations import Plan, PlanError, load_plan, read_plan
from .session import Session
from .step import Finding, Outcome, Status

_STATEMENT = re.compile(
    rf"{IGNORED}|\b(?P<verb>CREATE|DROP)\s+EXTENSION\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?"
    rf"(?P<name>{NAME})(?P<options>[^;]*)",
    re.IGNORECASE | re.DOTALL,
)
_ROLES = """
SELECT current_user::text AS role, owner.rolname::text AS owner,
    r.rolsuper AS is_superuser, owner.rolsuper AS owner_is_superuser,
    has_database_privilege(d.oid, 'CREATE') AS may_create,
    current_setting('transaction_read_only')::bool AS is_read_only,
    coalesce(nullif(%(schema)s, ''), current_schema(), 'public')::text AS schema
FROM pg_database d JOIN pg_roles owner ON owner.oid = d.datdba
    JOIN pg_roles r ON r.rolname = current_user
WHERE d.datname = current_database()
"""
_PRESENT = "SELECT extname::text FROM pg_extension"
# Those that the server can create.
_AVAILABLE = """
SELECT v.name::text, coalesce(v.schema::text, '') AS schema, v.superuser, v.trusted,
    coalesce(v.requires::text[], '{}') AS requires
FROM pg_available_extensions a JOIN pg_available_extension_versions v
    ON v.name = a.name AND v.version = a.default_version
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """What needs an extension; *is_pending* if it would create it."""

    source: str
    is_pending: bool
    cascades: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Roles:
    """The current role, the owner of the database, and the schema for extensions."""

    role: str
    owner: str
    is_superuser: bool
    owner_is_superuser: bool
    may_create: bool
    is_read_only: bool
    schema: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extension:
    """An extension; *schema* is empty unless it must be in a certain schema."""

    name: str
    schema: str
    superuser: bool
    trusted: bool
    requires: list[str]

    def is_creatable(self, roles: _Roles) -> bool:
        """Return whether the current role, or the one that migrates, can create it."""
        is_trusted = self.trusted and (roles.may_create or roles.is_read_only)
        return roles.is_superuser or is_trusted or not self.superuser

    def is_creatable_by_owner(self, roles: _Roles) -> bool:
        """Return whether the owner of the database can create it."""
        return roles.owner_is_superuser or self.trusted or not self.superuser


def check_extensions(session: Session) -> Outcome:
    """Check that the extensions of the installed apps exist, or will be created."""
    try:
        plan = _read_plan(session)
    except PlanError:
        return Outcome("not checked, because Django cannot load the migrations")
    needs = _find_needs(session, plan)
    present = _fetch_present(session)
    created = sorted(needs.keys() - present)
    findings = tuple(_find_missing(session, needs, present))
    if created:
        return Outcome(f"migrate will create {', '.join(created)}", findings)
    listed = ", ".join(sorted(needs))
    return Outcome(f"present: {listed}" if needs else "the project needs none")


def find_missing_extensions(session: Session) -> list[Finding]:
    """Return a finding for each extension that is missing, pending or not."""
    try:
        plan = _read_plan(session)
    except PlanError:
        return []
    needs, present = _find_needs(session, plan), _fetch_present(session)
    return list(_find_missing(session, needs, present, plans_ahead=True))


def _fetch_present(session: Session) -> set[str]:
    return {name for (name,) in session.fetch(_PRESENT)}


def _read_plan(session: Session) -> Plan:
    try:
        return read_plan(session)
    except PlanError as exc:
        if exc.finding.id == "migrations-unreadable":
            return load_plan(None)
        raise


def _find_needs(session: Session, plan: Plan) -> dict[str, _Need]:
    """Return what needs each extension, if it is not dropped later."""
    alias = session.wrapper.alias
    needs: dict[str, _Need] = {}
    if session.wrapper.features.gis_enabled:
        # migrate creates it before the migrations.
        source = "the engine django_lakebase.postgis"
        needs["postgis"] = _Need(source=source, is_pending=bool(plan.pending))
    for migration in plan.migrations:
        label = migration.app_label
        for operation in _flatten(migration.operations):
            if not router.allow_migrate(alias, label, **_hints(operation)):
                continue
            for name, creates, cascades in _read_operation(operation):
                if not creates:
                    needs.pop(name, None)
                    continue
                needs[name] = _Need(
                    source=f"{label}.{migration.name}",
                    is_pending=migration in plan.pending,
                    cascades=cascades,
                )
    return needs


def _hints(operation: Operation) -> dict[str, object]:
    return getattr(operation, "hints", None) or {}


def _flatten(operations: Sequence[Operation]) -> Iterator[Operation]:
    for operation in operations:
        if isinstance(operation, SeparateDatabaseAndState):
            yield from _flatten(operation.database_operations)
        else:
            yield operation


def _read_operation(operation: Operation) -> Iterator[tuple[str, bool, bool]]:
    """Yield the extensions, whether they are created, and whether with CASCADE."""
    if isinstance(operation, CreateExtension):
        yield operation.name, True, False
    elif isinstance(operation, RunSQL):
        scripts = [operation.sql] if isinstance(operation.sql, str) else operation.sql
        for script in scripts:
            text = script if isinstance(script, str) else script[0]
            yield from find_extensions(text)


def find_extensions(text: str) -> Iterator[tuple[str, bool, bool]]:
    """Yield what SQL creates or drops, as `_read_operation` does."""
    for match in _STATEMENT.finditer(text):
        name, creates = match["name"], str(match["verb"]).upper() == "CREATE"
        if name:
            unquoted = name[1:-1].replace('""', '"') if name[0] == '"' else name.lower()
            yield unquoted, creates, "CASCADE" in match["options"].upper()


def _find_missing(
    session: Session,
    needs: dict[str, _Need],
    present: set[str],
    *,
    plans_ahead: bool = False,
) -> Iterator[Finding]:
    """
    Yield what prevents `migrate` from creating the extensions that are missing.

    With *plans_ahead*, yields all that are missing.
    """
    missing = {name: need for name, need in needs.items() if name not in present}
    if not missing:
        return
    # All schemas of a database share its extensions.
    own_schema = session.wrapper.get_target().schema
    values = {"schema": "public" if own_schema else ""}
    with session.connection.cursor(row_factory=class_row(_Roles)) as cursor:
        [roles] = cursor.execute(_ROLES, values).fetchall()
    with session.connection.cursor(row_factory=class_row(_Extension)) as cursor:
        rows = cursor.execute(_AVAILABLE).fetchall()
    available = {extension.name: extension for extension in rows}
    created = {name for name, need in missing.items() if need.is_pending}
    for name, need in missing.items():
        involved = _add_requirements(name, available, present)
        detail = f'the extension "{name}", which {need.source} needs, is '
        absent = [other for other in involved if other not in available]
        if absent:
            yield _unavailable(f"{detail}not available on this server", absent)
            continue
        extensions = [available[other] for other in involved]
        if not all(extension.is_creatable_by_owner(roles) for extension in extensions):
            yield _unavailable(f"{detail}missing, and only a superuser can create it")
            continue
        reason = _explain(need, extensions, roles, created)
        if reason or plans_ahead:
            yield _missing(f"{detail}missing{reason}", extensions, roles)


def _add_requirements(
    name: str, available: dict[str, _Extension], present: set[str]
) -> list[str]:
    """Return *name* and the missing extensions that it requires."""
    found = [name]
    for required in found:
        extension = available.get(required)
        others = extension.requires if extension else []
        found += [o for o in others if o not in present and o not in found]
    return found


def _explain(
    need: _Need, extensions: list[_Extension], roles: _Roles, created: set[str]
) -> str:
    """Return why `migrate` will not create the first extension; empty if it will."""
    if not need.is_pending:
        return ", and no pending migration creates it"
    if not all(extension.is_creatable(roles) for extension in extensions):
        return f', and "{roles.role}" may not create it'
    others = [f'"{e.name}"' for e in extensions[1:] if e.name not in created]
    if others and not need.cascades:
        return f", and no pending migration creates {', '.join(others)}, which it needs"
    return ""


def _missing(detail: str, extensions: list[_Extension], roles: _Roles) -> Finding:
    first, *others = extensions
    schema = "" if first.schema else f" SCHEMA {quoted(roles.schema)}"
    cascade = " CASCADE" if others else ""
    create = f"CREATE EXTENSION IF NOT EXISTS {quoted(first.name)}{schema}{cascade};"
    return Finding(
        id="extension-missing",
        status=Status.FAIL,
        detail=detail,
        role=roles.owner,
        statements=(create,),
    )


def _unavailable(detail: str, absent: Sequence[str] = ()) -> Finding:
    hint = "Remove what needs the extension: no user of Lakebase is a superuser."
    if absent:
        listed = ", ".join(f'"{name}"' for name in absent)
        hint = (
            f"The server does not offer {listed}; its view pg_available_extensions "
            "lists the extensions of its version of PostgreSQL. Remove what needs the "
            "extension, or use a project with another version."
        )
    return Finding(
        id="extension-unavailable", status=Status.FAIL, detail=detail, hint=hint
    )
