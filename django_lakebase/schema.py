"""
The project's schema, ``OPTIONS["schema"]``, in migrations and introspection.

The search path of each session is the schema, then ``public``, and Django's queries
name no schema. The search path alone does not ensure three things:

- The schema must exist before Django migrates: otherwise PostgreSQL creates the tables
  in ``public``.
- Extensions belong in ``public``, because a database has each extension only once.
  PostgreSQL would create them in the first schema of the search path.
- Introspection must not list the tables in ``public``, although they are visible: they
  may be the tables of another project, with the same names.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.db.backends.postgresql.introspection import (
    DatabaseIntrospection as PostgreSQLDatabaseIntrospection,
)
from django.db.backends.postgresql.schema import (
    DatabaseSchemaEditor as PostgreSQLDatabaseSchemaEditor,
)
from psycopg import errors, sql

from .connect.errors import connect_error
from .connect.params import get_user
from .exceptions import ExplainedError
from .failures.classify import failures_by_id

if TYPE_CHECKING:
    from .base import LakebaseMixin

    SchemaEditor = PostgreSQLDatabaseSchemaEditor
    Introspection = PostgreSQLDatabaseIntrospection
else:
    # Mixins: django_lakebase.postgis combines them with other classes.
    SchemaEditor = Introspection = object

# A statement that names no schema: up to the name of the extension, and the rest.
_CREATE_EXTENSION = re.compile(
    r"((?:\s|--[^\n]*\n|/\*.*?\*/)*CREATE\s+EXTENSION(?:\s+IF\s+NOT\s+EXISTS)?\s+"
    r'(?:"[^"]+"|\w+)(?:\s+WITH\b)?)((?![^;]*\bSCHEMA\b).*)',
    re.IGNORECASE | re.DOTALL,
)


def create_schema(connection: "LakebaseMixin") -> None:
    """
    Create the project's schema if it is missing.

    Raises LakebaseError if the user may neither use nor create it.
    """
    may_use = _may_use_schema(connection)
    if may_use is None:
        try:
            _execute_create(connection)
        except DatabaseError as exc:
            # Another process may have created it at the same time.
            may_use = _may_use_schema(connection)
            if may_use is None:
                is_denied = isinstance(exc.__cause__, errors.InsufficientPrivilege)
                raise (_error(connection, exc) if is_denied else exc) from exc.__cause__
        else:
            may_use = True
    if may_use is False:
        raise _error(connection, PermissionError("the role has no USAGE privilege"))


def _may_use_schema(connection: "LakebaseMixin") -> bool | None:
    """Return whether the user may use the schema; None if it does not exist."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace "
            "WHERE nspname = %s",
            [connection.get_target().schema],
        )
        row = cursor.fetchone()
    return None if row is None else bool(row[0])


def _execute_create(connection: "LakebaseMixin") -> None:
    name = sql.Identifier(connection.get_target().schema)
    statement = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name)
    with open_transaction(connection), connection.cursor() as cursor:
        cursor.execute(statement)


@contextlib.contextmanager
def open_transaction(
    connection: "LakebaseMixin", *, force_rollback: bool = False
) -> Iterator[None]:
    """Run the block in a transaction, or a savepoint of the current one."""
    # Django's atomic() looks the connection up by its alias, and may get another one.
    # As in atomic(), autocommit is off: otherwise the session would count as one whose
    # transaction the program controls, which must not be replaced.
    connection.ensure_connection()
    autocommit, connection.autocommit = connection.autocommit, False
    try:
        with connection.connection.transaction(force_rollback=force_rollback):
            yield
    finally:
        connection.autocommit = autocommit


def _error(connection: "LakebaseMixin", cause: Exception) -> ExplainedError:
    target = connection.get_target()
    exists = isinstance(cause, PermissionError)
    failure = failures_by_id()["schema-denied" if exists else "schema-missing"]
    role = connection.settings_dict["OPTIONS"].get("assume_role") or get_user(target)
    facts = {"user": role, "name": target.schema, "seen": cause}
    return connect_error(target, cause, failure, **facts)


@contextlib.contextmanager
def public_first(connection: "LakebaseMixin") -> Iterator[None]:
    """Create extensions in ``public`` until the block ends."""
    with open_transaction(connection), connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('search_path'), "
            "set_config('search_path', 'public', true)"
        )
        [(search_path, _)] = cursor.fetchall()
        yield
        # The end of a savepoint does not undo it.
        cursor.execute("SELECT set_config('search_path', %s, true)", [search_path])


class SchemaEditorMixin(SchemaEditor):
    """Creates extensions in ``public`` if the project has a schema."""

    connection: "LakebaseMixin"

    def execute(self, sql: Any, params: Any = ()) -> None:
        """Execute *sql*; a CREATE EXTENSION without a schema gets one."""
        found = _CREATE_EXTENSION.fullmatch(str(sql))
        if found and self.connection.get_target().schema:
            sql = f"{found[1]} SCHEMA public{found[2]}"
        super().execute(sql, params)


class IntrospectionMixin(Introspection):
    """Lists only the tables of the project's schema, if it has one."""

    connection: "LakebaseMixin"

    def get_table_list(self, cursor: Any) -> list[Any]:
        """Return the tables and views that Django may use."""
        tables = super().get_table_list(cursor)
        schema = self.connection.get_target().schema
        if not schema:
            return tables
        cursor.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace WHERE n.nspname = %s",
            [schema],
        )
        names = {name for (name,) in cursor.fetchall()}
        return [table for table in tables if table.name in names]


class DatabaseSchemaEditor(SchemaEditorMixin, PostgreSQLDatabaseSchemaEditor):
    """Django's schema editor for PostgreSQL."""


class DatabaseIntrospection(IntrospectionMixin, PostgreSQLDatabaseIntrospection):
    """Django's introspection of PostgreSQL."""
