"""
The existing tables that pending migrations alter, for the step ``ownership``.

How it works. Each operation writes its SQL as in ``sqlmigrate``, without executing it,
and patterns find the tables in the SQL. This runs in a transaction that is read-only
and rolled back, so that an operation of the project that executes statements itself
changes nothing.

Limits. Operations that cannot be written as SQL, such as RunPython, are skipped. So are
the effects of earlier pending operations: an operation that looks up a constraint which
they would create raises an error, and counts as one that alters the table of its model.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from django.db.migrations import SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from django_lakebase.base import LakebaseMixin
from django_lakebase.schema import open_transaction

from .migrations import Plan, PlanError, read_plan
from .session import Session

# A part of an identifier, and text that the patterns must not search.
NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
IGNORED = r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'"
_RELATION = rf"{NAME}(?:\s*\.\s*{NAME})?"
_ALTERED = (
    r"(?:ALTER|DROP|REINDEX|REFRESH|COMMENT\s+ON)\s+(?:FOREIGN\s+|MATERIALIZED\s+)?"
    r"(?:TABLE|INDEX|VIEW|SEQUENCE)|TRUNCATE(?:\s+TABLE)?"
    r"|(?:(?:CREATE|ALTER|DROP|COMMENT\s+ON)\s+(?:UNIQUE\s+|OR\s+REPLACE\s+)?"
    r"(?:CONSTRAINT\s+)?(?:INDEX|TRIGGER|POLICY|RULE)|COMMENT\s+ON\s+CONSTRAINT)"
    r"\b[^;]*?\bON"
    r"|PARTITION\s+OF|ATTACH\s+PARTITION|INHERIT"
)
_USES = re.compile(
    rf"{IGNORED}"
    rf"|\bCOMMENT\s+ON\s+COLUMN\s+(?P<column_of>{_RELATION})\s*\.\s*{NAME}"
    rf"|\b(?:{_ALTERED})\s+(?:(?:CONCURRENTLY|ONLY|IF\s+EXISTS)\s+)*"
    rf"(?P<altered>{_RELATION}(?:\s*,\s*{_RELATION})*)"
    rf"|\bINHERITS\s*\(\s*(?P<parents>{_RELATION}(?:\s*,\s*{_RELATION})*)"
    rf"|\bREFERENCES\s+(?P<referenced>{_RELATION})",
    re.IGNORECASE | re.DOTALL,
)
# An index and the sequence of a column count as the table that they belong to. Unlike
# parse_ident, to_regclass requires USAGE on the schema in a name.
_TABLES = """
SELECT i.name, t.relname::text
FROM unnest(%(names)s::text[]) i (name)
    CROSS JOIN LATERAL (SELECT parse_ident(i.name)::name[] AS names) part
    JOIN pg_class c ON c.relname = part.names[cardinality(part.names)]
    JOIN pg_namespace n ON n.oid = c.relnamespace
        AND n.nspname = coalesce(nullif(%(schema)s, ''), current_schema(), 'public')
        AND (cardinality(part.names) = 1 OR n.nspname = part.names[1])
    LEFT JOIN pg_index x ON x.indexrelid = c.oid
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid
        AND c.relkind = 'S' AND d.deptype IN ('a', 'i')
        AND d.refclassid = 'pg_class'::regclass
    JOIN pg_class t ON t.oid = coalesce(x.indrelid, d.refobjid, c.oid)
"""


class Use(NamedTuple):
    """
    What a pending migration does to a table: *migration* is like "app.0001_initial".

    A foreign key *references* its table, which requires the privilege REFERENCES.
    Everything else *alters* it, which requires to be its owner.
    """

    migration: str
    kind: Literal["alters", "references"]


def find_altered_tables(session: Session) -> dict[str, Use]:
    """
    Return the existing tables of the project's schema that pending migrations use.

    A table that is altered and referenced counts as altered. RunPython may alter more
    tables: it is not executed. Returns nothing if the migrations cannot be read.
    """
    try:
        plan = read_plan(session)
    except PlanError:
        return {}
    if not plan.pending:
        return {}
    uses = [
        (name, Use(migration, kind))
        for migration, statement in _collect_statements(session.wrapper, plan)
        for name, kind in find_names(statement)
    ]
    values = {
        "names": list({name for name, _ in uses}),
        "schema": session.wrapper.get_target().schema,
    }
    tables = dict(session.fetch(_TABLES, values))
    found: dict[str, Use] = {}
    # The first migration that alters a table, or else the first that references it.
    for name, use in sorted(uses, key=lambda item: item[1].kind):
        if name in tables:
            found.setdefault(tables[name], use)
    return found


def find_names(statement: str) -> Iterator[tuple[str, Literal["alters", "references"]]]:
    """Yield the names of relations that SQL alters or references, as written in it."""
    for match in _USES.finditer(statement):
        if match["referenced"]:
            yield match["referenced"], "references"
        altered = match["altered"] or match["parents"] or match["column_of"] or ""
        for name in re.findall(_RELATION, altered):
            yield name, "alters"


def _collect_statements(
    wrapper: LakebaseMixin, plan: Plan
) -> Iterator[tuple[str, str]]:
    """Yield each pending migration with each of its statements."""
    state = ProjectState(real_apps=plan.loader.unmigrated_apps)
    wrapper.ensure_connection()
    with open_transaction(wrapper, force_rollback=True):
        wrapper.connection.execute("SET TRANSACTION READ ONLY")
        for migration in plan.migrations:
            if migration not in plan.pending:
                state = migration.mutate_state(state, preserve=False)
                continue
            label = migration.app_label
            # Copies of the state then share the models, which take long to create.
            state.apps  # noqa: B018
            steps: list[tuple[Operation, ProjectState, ProjectState]] = []
            state = _walk(migration.operations, label, state, steps)
            for step in steps:
                for statement in _collect(wrapper, label, *step):
                    yield f"{label}.{migration.name}", statement


def _walk(
    operations: Sequence[Operation],
    label: str,
    state: ProjectState,
    steps: list[tuple[Operation, ProjectState, ProjectState]],
) -> ProjectState:
    """
    Append the operations that change the database, with the states around them.

    Returns the state after all of them.
    """
    for operation in operations:
        after = state.clone()
        operation.state_forwards(label, after)
        if isinstance(operation, SeparateDatabaseAndState):
            _walk(operation.database_operations, label, state, steps)
        elif operation.reduces_to_sql:
            steps.append((operation, state, after))
        state = after
    return state


def _collect(
    wrapper: LakebaseMixin,
    label: str,
    operation: Operation,
    before: ProjectState,
    after: ProjectState,
) -> Iterable[str]:
    """Return the statements of *operation*."""
    # Not atomic: operations such as AddIndexConcurrently refuse to run inside atomic.
    editor: Any = wrapper.schema_editor(collect_sql=True, atomic=False)
    try:
        with open_transaction(wrapper), editor:
            operation.database_forwards(label, editor, before, after)
    except Exception:  # noqa: BLE001 - an operation of the project may raise anything.
        return [*editor.collected_sql, *_alter_model(wrapper, label, operation, before)]
    return list(editor.collected_sql)


def _alter_model(
    wrapper: LakebaseMixin, label: str, operation: Operation, state: ProjectState
) -> Iterator[str]:
    """Yield a statement that alters the table of the operation's model, if any."""
    name = getattr(operation, "model_name", getattr(operation, "name", None))
    if (label, str(name).lower()) in state.models:
        model = state.apps.get_model(label, str(name))
        if operation.allow_migrate_model(wrapper.alias, model):
            yield f"ALTER TABLE {wrapper.ops.quote_name(model._meta.db_table)}"
