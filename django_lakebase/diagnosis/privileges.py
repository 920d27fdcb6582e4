"""The steps ``privileges`` and ``ownership`` of ``lakebase_check --deploy``."""

from collections.abc import Iterator
from dataclasses import replace

from django_lakebase.roles.change import Change, count, listed
from django_lakebase.roles.facts import (
    Facts,
    OwnedObject,
    Request,
    count_by_owner,
    fetch_facts,
)
from django_lakebase.roles.ownership import can_become_owner, plan_ownership
from django_lakebase.roles.plan import plan
from django_lakebase.roles.project import project_tables
from django_lakebase.roles.statements import LONGEST_NAME

from .altered_tables import find_altered_tables
from .session import Session
from .step import Finding, Outcome, Status

_SESSION = """
SELECT current_user::text, session_user::text,
    current_setting('transaction_read_only')::bool
"""


def check_privileges(session: Session) -> Outcome:
    """Check that the role can use the tables of the installed apps, and create some."""
    request, facts = fetch_current(session)
    schema, role = facts.database.schema, request.grantee
    can = "read" if request.is_read_only else "read, write and create"
    summary = (
        f'"{role}" can {can} tables in the schema "{schema}", which has '
        f"{_count_tables(facts)} of the installed apps"
    )
    if not facts.database.schema_exists:
        summary = f'"{role}" can create the schema "{schema}"'
    changes = plan(request, facts)
    if any(change.id == "ownership" for change in changes):
        summary = (
            f'"{role}" can create tables in the schema "{schema}"; for what it lacks '
            "on existing tables, see the step ownership"
        )
    missing = (change for change in changes if change.id != "ownership")
    return Outcome(summary, tuple(_finding(change, Status.FAIL) for change in missing))


def check_ownership(session: Session) -> Outcome:
    """Check that the role can run the pending migrations on the existing tables."""
    request, facts = fetch_current(session)
    role = request.grantee
    if request.is_read_only:
        return Outcome(f'"{role}" is read-only, so it runs no migrations')
    others = [
        item
        for item in facts.objects
        if item.schema == facts.database.schema and (role, item.owner) not in facts.uses
    ]
    altered: dict[str, str] = {}
    if others:
        # Some of them no model has any more: a migration renames or deletes them.
        uses = find_altered_tables(session).items()
        altered = {table: use.migration for table, use in uses if use.kind == "alters"}
    others = [
        item
        for item in others
        if request.migrates(item.table) or {item.name, item.table} & altered.keys()
    ]
    if request.owner_role:
        planned = plan_ownership(facts, role, others)
        findings = [_finding(c, Status.FAIL) for c in planned]
    else:
        findings = [*_find_blocked(session, request, facts, others, altered)]
        findings += _find_unused_owner_roles(request, facts)
    summary = f'"{role}" can alter all {_count_tables(facts)} tables'
    return Outcome(summary, tuple(findings))


def _find_blocked(
    session: Session,
    request: Request,
    facts: Facts,
    others: list[OwnedObject],
    altered: dict[str, str],
) -> Iterator[Finding]:
    """Yield what prevents migrations of the tables of *others*."""
    if not others:
        return
    blocked = [item for item in others if {item.name, item.table} & altered.keys()]
    if not blocked:
        yield _not_owned(request.grantee, others)
        return
    reason = ", ".join(
        sorted({altered.get(item.table) or altered[item.name] for item in blocked})
    )
    changes = _plan_for_pending(session, request, facts, blocked)
    hint = f"A pending migration alters tables of another owner: {reason}."
    for change in changes:
        yield replace(_finding(change, Status.FAIL), hint=hint)
        hint = ""


def _find_unused_owner_roles(request: Request, facts: Facts) -> Iterator[Finding]:
    """Yield a warning if new tables would not belong to the owner of the others."""
    role = request.grantee
    owners = {r.owner for r in facts.relations if request.migrates(r.table)}
    for owner in sorted(owners & facts.roles.keys()):
        if (role, owner) in facts.uses and not facts.roles[owner].can_log_in:
            yield Finding(
                id="assume-role-unset",
                status=Status.WARN,
                detail=f'tables belong to "{owner}", but new ones will not: they will '
                f'belong to "{role}"',
                hint=f'Set OPTIONS["assume_role"] to "{owner}".',
            )


def _plan_for_pending(
    session: Session, request: Request, facts: Facts, blocked: list[OwnedObject]
) -> list[Change]:
    """Return the changes after which the role can alter the tables."""
    role, owners = request.grantee, {item.owner for item in blocked}
    if can_become_owner(facts, role, owners):
        return list(plan_ownership(facts, role, blocked))
    # From PostgreSQL 16 on, the owner of the database may not join every role. Then the
    # tables go to a new role, and both become members of it.
    shared = replace(request, owner_role=f"{facts.database.name}_owner"[:LONGEST_NAME])
    return plan(shared, fetch_facts(session.connection, shared))


def _not_owned(role: str, others: list[OwnedObject]) -> Finding:
    owners = ", ".join(f'"{owner}"' for owner in sorted({i.owner for i in others}))
    names = listed(sorted(item.name for item in others))
    return Finding(
        id="ownership",
        status=Status.WARN,
        detail=f"{count(len(others), 'table')} of {owners}: {names}",
        hint=(
            'No pending migration alters them, but later ones will fail with "must be '
            f'owner of table", unless {owners} runs them. So that "{role}" can run '
            "them too, run lakebase_role create with --owner-role, as the owner of the "
            "database."
        ),
    )


def fetch_current(session: Session) -> tuple[Request, Facts]:
    """Return what the current role of *session* needs, and what it has."""
    [(current, login, is_read_only)] = session.fetch(_SESSION)
    request = Request(
        role=current if is_read_only else login,
        owner_role=current if current != login else "",
        is_read_only=is_read_only,
        **project_tables(session.wrapper),
    )
    return request, fetch_facts(session.connection, request)


def _finding(change: Change, status: Status) -> Finding:
    return Finding(
        id=change.id,
        status=status,
        detail=change.detail,
        role=change.role,
        statements=change.statements,
    )


def _count_tables(facts: Facts) -> int:
    return sum(count_by_owner(facts.relations).values())
