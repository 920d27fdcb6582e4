"""What ``lakebase_role`` prints: its report, notes for the user, and roles."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from django_lakebase.base import LakebaseMixin
from django_lakebase.roles.change import Change, listed
from django_lakebase.roles.facts import Facts, Request, Role
from django_lakebase.roles.overview import Overview

WRITING = frozenset(("INSERT", "UPDATE", "DELETE"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run has done, and what is *left* because *runner* may not do it."""

    alias: str
    role: str
    runner: str
    done: list[Change]
    left: list[Change]
    is_dry_run: bool
    notes: list[str]

    def as_json(self) -> dict[str, Any]:
        """Return what ``--format json`` prints."""
        status = "planned" if self.is_dry_run else "denied"
        changes = [("done", change) for change in self.done]
        changes += [(status, change) for change in self.left]
        return {
            "version": 1,
            "alias": self.alias,
            "role": self.role,
            "changes": [{"status": s, **asdict(change)} for s, change in changes],
            "notes": self.notes,
        }


def find_notes_after_revoke(request: Request, facts: Facts) -> list[str]:
    """Return what is left after a role has lost its privileges."""
    owned = [r.name for r in facts.relations if r.owner == request.role]
    if not owned:
        return []
    return [f'"{request.role}" keeps all privileges on what it owns: {listed(owned)}.']


def find_notes(wrapper: LakebaseMixin, request: Request, facts: Facts) -> list[str]:
    """Return what the person who creates a role should know or do."""
    notes = []
    role = facts.roles.get(request.role)
    assumed = wrapper.settings_dict["OPTIONS"].get("assume_role")
    if role is not None and request.identity_type and not role.label:
        notes.append(
            f'The role "{request.role}" exists, but does not accept tokens, because it '
            "was not created by databricks_create_role or the API. See "
            "role-without-label in the documentation of errors."
        )
    others = [
        name
        for name in facts.roles
        if name != request.role and name.lower() == request.role.lower()
    ]
    if role is None and others:
        notes.append(
            f'The role "{others[0]}" exists already. The name of a role must be that '
            "of the identity, with the same upper and lower case letters."
        )
    if request.is_read_only and any(WRITING & set(r.held) for r in facts.relations):
        notes.append(
            f'"{request.role}" can write, because it was granted more before. To take '
            "that back, run lakebase_role revoke, and then this command again."
        )
    schema = facts.database.schema
    if not facts.database.schema_exists:
        notes.append(
            f'The schema "{schema}" does not exist yet. migrate creates it. Run this '
            "command again after that."
        )
    elif facts.migrated_schemas and schema not in facts.migrated_schemas:
        names = ", ".join(f'"{name}"' for name in facts.migrated_schemas)
        notes.append(
            f'The schema "{schema}" contains no Django tables, but another one does: '
            f"{names}. If the project uses that schema, set "
            'OPTIONS["schema"] (LAKEBASE_SCHEMA) to its name and run the command again.'
        )
    if request.grantee == request.owner_role and assumed != request.owner_role:
        notes.append(
            f'Set OPTIONS["assume_role"] to "{request.owner_role}" wherever the '
            "project runs: in the deployment, and on the machines of developers."
        )
    return notes


def describe_role(role: Role) -> str:
    """Return how a role logs in, its attributes and its memberships."""
    attributes = [
        name
        for name, is_set in (
            ("superuser", role.is_superuser),
            ("createdb", role.createdb),
            ("createrole", role.createrole),
            ("bypassrls", role.bypassrls),
            ("read-only", role.is_read_only),
        )
        if is_set
    ]
    login = "no login"
    if role.can_log_in:
        login = f"logs in with tokens ({role.label})" if role.label else "native login"
    described = [login, *attributes]
    if role.groups:
        described.append(f"member of {', '.join(role.groups)}")
    return ", ".join(described)


def describe_privileges(overview: Overview, role: Role) -> Iterator[str]:
    """Yield lines about the privileges of a role."""
    held = overview.privileges[role.name]
    tables = sum(overview.owners.values())
    yield f"database: {', '.join(held.database) or 'no privileges'}"
    yield f"schema: {', '.join(held.schema) or 'no privileges'}"
    owned = overview.owners.get(role.name, 0)
    yield (
        f"tables of the installed apps: owns {owned}, can read {held.readable} and "
        f"write {held.writable} of {tables}"
    )
