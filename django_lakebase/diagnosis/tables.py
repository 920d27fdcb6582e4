"""The deployment steps ``row-security`` and ``replica-identity``, about tables."""

from collections.abc import Callable, Iterable
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from psycopg.sql import SQL, Identifier

from django_lakebase.roles.change import listed

from .session import Session
from .step import Finding, Outcome, Status

# Policies apply as in check_enable_rls() of PostgreSQL: not to roles with BYPASSRLS,
# and to an owner, or a role that inherits the owner's privileges, only with FORCE. The
# default replica identity is the primary key; without one, it is the same as nothing.
QUERY = """
SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner),
    EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid),
    c.relrowsecurity, c.relforcerowsecurity,
    pg_has_role(current_user, c.relowner, 'USAGE'),
    c.relreplident = 'f',
    c.relreplident = 'f' OR EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND CASE c.relreplident
            WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident END
    )
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')
    AND c.relname = ANY(%(names)s)
ORDER BY pg_get_userbyid(c.relowner), c.relname
"""
BYPASS_QUERY = """
SELECT r.rolname, r.rolbypassrls, r.rolsuper, pg_get_userbyid(d.datdba)
FROM pg_roles r, pg_database d
WHERE r.rolname = current_user AND d.datname = current_database()
"""


class Table(NamedTuple):
    """A table of an installed app, as the current role sees it."""

    schema: str
    name: str
    owner: str
    has_policies: bool
    has_row_security: bool
    is_forced: bool
    is_own: bool
    has_full_identity: bool
    has_identity: bool


def check_row_security(session: Session) -> Outcome:
    """Report tables whose policies do not restrict the role."""
    tables = [table for table in _fetch_tables(session) if table.has_policies]
    if not tables:
        return Outcome("no table has policies")
    [(role, may_bypass, is_superuser, database_owner)] = session.fetch(BYPASS_QUERY)
    disabled = _findings(
        "row-security-disabled",
        Status.WARN,
        (table for table in tables if not table.has_row_security),
        lambda names: f"the policies of {names} are not enabled",
        SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY;"),
    )
    not_forced = _findings(
        "row-security-not-forced",
        Status.WARN,
        (table for table in tables if table.is_own and not table.is_forced),
        lambda names: (
            f'the policies of {names} do not restrict "{role}", which has the rights '
            "of the owner"
        ),
        SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY;"),
    )
    bypassed = Finding(
        id="row-security-bypassed",
        status=Status.WARN,
        detail=f'no policy restricts "{role}", which has BYPASSRLS',
        role=database_owner,
        statements=(
            SQL("ALTER ROLE {} NOBYPASSRLS;").format(Identifier(role)).as_string(None),
        ),
    )
    if is_superuser:
        bypassed = Finding(
            id="row-security-bypassed",
            status=Status.WARN,
            detail=f'no policy restricts "{role}", which is a superuser',
            hint="Log in as another role, or set assume_role to one.",
        )
    is_bypassed = may_bypass or is_superuser
    findings = (*disabled, *not_forced, *([bypassed] if is_bypassed else []))
    return Outcome(f'{_named(tables)}: the policies restrict "{role}"', findings)


def check_replica_identity(session: Session) -> Outcome:
    """Report what the tables lack for change data feeds and logical replication."""
    tables = _fetch_tables(session)
    full = sum(table.has_full_identity for table in tables)
    summary = (
        f"{full} of {len(tables)} tables have REPLICA IDENTITY FULL, which a change "
        "data feed needs"
    )
    findings = _findings(
        "replica-identity-missing",
        Status.OK,
        (table for table in tables if not table.has_identity),
        lambda names: (
            f"{summary}; updates and deletes in {names} cannot be replicated at all"
        ),
        SQL("ALTER TABLE {} REPLICA IDENTITY FULL;"),
    )
    return Outcome(summary, tuple(findings))


def _fetch_tables(session: Session) -> list[Table]:
    """Return the tables of the installed apps that exist, by owner and name."""
    # Without only_existing, which would open Django's connection.
    names = session.wrapper.introspection.django_table_names()
    rows = session.fetch(QUERY, {"names": sorted(names)})
    return [Table(*row) for row in rows]


def _findings(
    finding_id: str,
    status: Status,
    tables: Iterable[Table],
    describe: Callable[[str], str],
    statement: SQL,
) -> list[Finding]:
    """Return a finding for each owner of *tables*, with a statement for each table."""
    by_owner = [
        (owner, list(group)) for owner, group in groupby(tables, attrgetter("owner"))
    ]
    return [
        Finding(
            id=finding_id,
            status=status,
            detail=describe(_named(group)),
            role=owner,
            statements=tuple(
                statement.format(Identifier(table.schema, table.name)).as_string(None)
                for table in group
            ),
        )
        for owner, group in by_owner
    ]


def _named(tables: list[Table]) -> str:
    return listed([f'"{table.name}"' for table in tables])
