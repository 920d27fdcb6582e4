"""
What the catalog of a database says about roles, privileges and owners.

The queries work on every supported version of PostgreSQL, for roles that do not exist,
and in a session that may only connect.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, LiteralString, TypeVar

from psycopg.rows import class_row

from django_lakebase.base import MEMBERSHIP_OPTIONS_VERSION
from django_lakebase.connect.liveness import Connection

from .statements import (
    SEQUENCE_PRIVILEGES,
    TABLE_PRIVILEGES,
)

T = TypeVar("T")

# The roles of the service have this prefix. Those of PostgreSQL have "pg_", which no
# other role may have.
SERVICE_PREFIX = "databricks_"

# The owner of the database is the member of pg_database_owner, which owns "public".
_DATABASE = """
SELECT current_setting('server_version_num')::int AS version,
    current_database()::text AS name, pg_get_userbyid(d.datdba)::text AS owner,
    current_user::text AS runner, v.name::text AS schema,
    n.oid IS NOT NULL AS schema_exists, coalesce(pg_get_userbyid(CASE n.nspowner
        WHEN 'pg_database_owner'::regrole THEN d.datdba ELSE n.nspowner END),
        '')::text AS schema_owner,
    EXISTS (SELECT FROM pg_extension WHERE extname = 'databricks_auth')
        AS has_auth_extension
FROM pg_database d, (VALUES (coalesce(
    nullif(%(schema)s, ''), current_schema(), 'public'))) v (name)
    LEFT JOIN pg_namespace n ON n.nspname = v.name
WHERE d.datname = current_database()
"""
_ROLES = """
SELECT r.rolname::text AS name, r.rolcanlogin AS can_log_in, r.rolsuper AS is_superuser,
    r.rolcreatedb AS createdb, r.rolcreaterole AS createrole,
    r.rolbypassrls AS bypassrls, coalesce(l.label, '') AS label,
    'default_transaction_read_only=on' = ANY(s.setconfig) IS TRUE AS is_read_only,
    ARRAY(SELECT DISTINCT pg_get_userbyid(roleid)::text FROM pg_auth_members
        WHERE member = r.oid ORDER BY 1) AS groups
FROM pg_roles r LEFT JOIN pg_seclabels l ON l.objoid = r.oid
        AND l.provider = 'databricks_auth' AND l.objtype = 'role'
    LEFT JOIN pg_db_role_setting s ON s.setrole = r.oid AND s.setdatabase = 0
"""
# The privileges of a role that does not exist are NULL.
_HELD = """
SELECT p FROM pg_roles r, pg_database d,
    unnest(ARRAY['CONNECT', 'CREATE']) p
WHERE r.rolname = %(role)s AND d.datname = current_database()
    AND has_database_privilege(r.oid, d.oid, p)
"""
_HELD_ON_SCHEMA = """
SELECT p FROM pg_roles r, pg_namespace n, unnest(ARRAY['USAGE', 'CREATE']) p
WHERE r.rolname = %(role)s AND n.nspname = %(schema)s
    AND has_schema_privilege(r.oid, n.oid, p)
"""
# A sequence belongs to the table whose column uses it, a partition to the partitioned
# table: a migration of that table alters its partitions too.
_RELATIONS = """
SELECT c.relname::text AS name, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END
        AS kind, pg_get_userbyid(c.relowner)::text AS owner,
    coalesce(p.relname, t.relname, c.relname)::text AS table,
    ARRAY(SELECT p FROM unnest(CASE c.relkind
        WHEN 'S' THEN %(sequence_privileges)s::text[]
        ELSE %(table_privileges)s::text[] END) p WHERE CASE c.relkind
        WHEN 'S' THEN has_sequence_privilege(r.oid, c.oid, p)
        ELSE has_table_privilege(r.oid, c.oid, p) END) AS held,
    EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass
        AND objid = c.oid AND deptype = 'e') AS is_of_extension
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_roles r ON r.rolname = %(role)s
    LEFT JOIN pg_depend s ON s.classid = 'pg_class'::regclass AND s.objid = c.oid
        AND c.relkind = 'S' AND s.deptype IN ('a', 'i')
        AND s.refclassid = 'pg_class'::regclass
    LEFT JOIN pg_class t ON t.oid = s.refobjid
    LEFT JOIN pg_class p ON p.oid = pg_partition_root(coalesce(t.oid, c.oid))
WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
ORDER BY c.relname
"""
# The owner of a role's own objects is recorded in pg_shdepend, except for objects of
# the superuser that initialized the server. A sequence of a column has the owner of its
# table. The identity of an aggregate without arguments is only valid for a routine.
_OBJECTS = """
SELECT upper(CASE i.type WHEN 'statistics object' THEN 'statistics'
        WHEN 'aggregate' THEN 'routine' ELSE i.type END) AS kind,
    i.identity, pg_get_userbyid(d.refobjid)::text AS owner,
    coalesce(n.nspname, '')::text AS schema, coalesce(c.relname, '')::text AS name,
    coalesce(p.relname, c.relname, '')::text AS table
FROM pg_shdepend d
    CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) i
    LEFT JOIN pg_namespace n ON quote_ident(n.nspname) = i.schema
    LEFT JOIN pg_class c ON d.classid = 'pg_class'::regclass AND c.oid = d.objid
    LEFT JOIN pg_class p ON p.oid = pg_partition_root(c.oid)
WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o'
    AND (d.dbid = 0 OR d.dbid = (
        SELECT oid FROM pg_database WHERE datname = current_database()))
    AND i.identity IS NOT NULL
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = d.classid
        AND objid = d.objid AND (deptype = 'e' OR (c.relkind = 'S'
            AND deptype IN ('a', 'i') AND refclassid = 'pg_class'::regclass)))
ORDER BY i.type, i.identity
"""
_DEFAULTS = """
SELECT pg_get_userbyid(a.defaclrole)::text AS creator,
    CASE a.defaclobjtype WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END AS kind,
    x.privilege_type AS privilege
FROM pg_default_acl a CROSS JOIN LATERAL aclexplode(a.defaclacl) x
    LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace
    LEFT JOIN pg_roles r ON r.rolname = %(role)s
WHERE a.defaclobjtype IN ('r', 'S')
    AND (a.defaclnamespace = 0 OR n.nspname = %(schema)s)
    AND CASE x.grantee WHEN 0 THEN true ELSE pg_has_role(r.oid, x.grantee, 'USAGE') END
"""
# Without an owner role, the current user may be the next to migrate.
_CREATORS = """
SELECT pg_get_userbyid(x.grantee)::text
FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) x
    JOIN pg_roles r ON r.oid = x.grantee
WHERE n.nspname = %(schema)s AND x.privilege_type = 'CREATE' AND NOT r.rolsuper
    AND (r.rolcanlogin OR r.rolname = %(owner_role)s)
UNION SELECT current_user::text FROM pg_namespace
WHERE nspname = %(schema)s AND has_schema_privilege(oid, 'CREATE')
    AND %(owner_role)s = ''
ORDER BY 1
"""
_MIGRATED = """
SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = 'django_migrations' ORDER BY 1
"""
_USES = """
SELECT a.rolname::text, b.rolname::text, pg_has_role(a.oid, b.oid, 'USAGE'),
    pg_has_role(a.oid, b.oid, %(may_set)s),
    pg_has_role(a.oid, b.oid, 'MEMBER WITH ADMIN OPTION')
        OR (a.rolcreaterole AND NOT b.rolsuper AND NOT %(has_options)s)
FROM pg_roles a, pg_roles b WHERE a.rolname = ANY(%(roles)s::text[])
    AND b.rolname = ANY(%(roles)s::text[])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    A role, and what it is supposed to be able to do.

    *identity_type* is USER, SERVICE_PRINCIPAL or GROUP. *owner_role* is the role that
    owns the tables and that *role* is a member of; empty if roles own what they create.
    *plans_ahead* includes what is needed only when another role creates tables.
    *schema* is the project's own schema; empty if the project uses the schema that is
    first in the search path, which other projects may also use. *tables* are the names
    of the tables of the installed apps; Django does not manage *unmanaged_tables*.
    """

    role: str
    identity_type: str = ""
    owner_role: str = ""
    is_read_only: bool = False
    plans_ahead: bool = False
    schema: str = ""
    tables: frozenset[str] = frozenset()
    unmanaged_tables: frozenset[str] = frozenset()

    @property
    def grantee(self) -> str:
        """The role that gets the privileges: *role* has them as a member."""
        return self.role if self.is_read_only else self.owner_role or self.role

    def covers(self, table: str) -> bool:
        """Return whether a table of the schema is the project's."""
        return bool(self.schema) or table in self.tables | self.unmanaged_tables

    def migrates(self, table: str) -> bool:
        """Return whether migrations of the project may alter a table of the schema."""
        owns_all = bool(self.schema) and table not in self.unmanaged_tables
        return owns_all or table in self.tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """
    The current database and the schema of the project.

    *version* is ``server_version_num``, *runner* the current user.
    """

    version: int
    name: str
    owner: str
    runner: str
    schema: str
    schema_exists: bool
    schema_owner: str
    has_auth_extension: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """
    A role.

    *label* is set for roles that log in with tokens, *is_read_only* if the role's
    transactions are read-only by default, *groups* are the roles it is a member of.
    """

    name: str
    can_log_in: bool
    is_superuser: bool
    createdb: bool
    createrole: bool
    bypassrls: bool
    label: str
    is_read_only: bool
    groups: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """
    A table, a view or a sequence of the schema; *kind* is TABLE or SEQUENCE.

    *table* is the table whose column uses a sequence, or the partitioned table of a
    partition, else the name itself. *held* are the privileges that the grantee has.
    """

    name: str
    kind: str
    owner: str
    table: str
    held: list[str]
    is_of_extension: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedObject:
    """
    An object whose owner can be changed.

    *kind* and *identity* are for ALTER. *schema* is empty if the object is in none,
    *name* and *table*, which are as in `Relation`, are empty unless it is a relation.
    """

    kind: str
    identity: str
    owner: str
    schema: str
    name: str
    table: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """
    What the catalog says about a `Request`.

    *held* are the privileges of the grantee on the database, *held_on_schema* those on
    the schema. *relations* are those of the project; *kinds_of_others* are the kinds of
    which the schema also contains others. *defaults* are (creator, kind, privilege) of
    what it will have on new relations, *creators* the roles that may create relations.
    *migrated_schemas* contain Django's table of applied migrations.
    In *uses* are the pairs of a role and another whose privileges it has, in *may_set*
    those where it may switch to the other, in *may_grant* those where it may make
    itself or another role a member of the other.
    """

    database: Database
    roles: dict[str, Role]
    held: frozenset[str]
    held_on_schema: frozenset[str]
    relations: list[Relation]
    kinds_of_others: frozenset[str]
    objects: list[OwnedObject]
    defaults: frozenset[tuple[str, str, str]]
    creators: list[str]
    migrated_schemas: list[str]
    uses: frozenset[tuple[str, str]]
    may_set: frozenset[tuple[str, str]]
    may_grant: frozenset[tuple[str, str]]

    def executor_for(self, owner: str) -> str:
        """Return a role that can log in and has the privileges of *owner*, if any."""
        role, other = self.roles.get(owner), self.database.owner
        is_usable = role is None or role.can_log_in or (other, owner) not in self.uses
        return owner if is_usable else other


def fetch_facts(connection: Connection, request: Request) -> Facts:
    """Read the facts for *request*."""
    [database] = _fetch(connection, Database, _DATABASE, {"schema": request.schema})
    values: dict[str, Any] = {
        "role": request.grantee,
        "owner_role": request.owner_role,
        "schema": database.schema,
        "table_privileges": list(TABLE_PRIVILEGES),
        "sequence_privileges": list(SEQUENCE_PRIVILEGES),
    }
    relations = _fetch(connection, Relation, _RELATIONS, values)

    def is_own(relation: Relation) -> bool:
        return request.covers(relation.table) and not relation.is_of_extension

    own = [relation for relation in relations if is_own(relation)]
    objects = _fetch(connection, OwnedObject, _OBJECTS)
    creators = _column(connection, _CREATORS, values)
    roles = {role.name: role for role in _fetch(connection, Role, _ROLES)}
    involved = {database.owner, database.runner, database.schema_owner, *creators}
    involved |= {request.role, request.owner_role}
    involved |= {relation.owner for relation in own}
    involved |= {item.owner for item in objects if item.schema == database.schema}
    uses, may_set, may_grant = _fetch_memberships(
        connection, involved, database.version
    )
    return Facts(
        database=database,
        roles=roles,
        held=frozenset(_column(connection, _HELD, values)),
        held_on_schema=frozenset(_column(connection, _HELD_ON_SCHEMA, values)),
        relations=own,
        kinds_of_others=frozenset(r.kind for r in relations if not is_own(r)),
        objects=objects,
        defaults=frozenset(connection.execute(_DEFAULTS, values).fetchall()),
        creators=creators,
        migrated_schemas=_column(connection, _MIGRATED, values),
        uses=uses,
        may_set=may_set,
        may_grant=may_grant,
    )


def _fetch_memberships(
    connection: Connection, roles: Collection[str], version: int
) -> tuple[frozenset[tuple[str, str]], ...]:
    """Return the pairs for `Facts.uses`, `Facts.may_set` and `Facts.may_grant`."""
    has_options = version >= MEMBERSHIP_OPTIONS_VERSION
    values = {
        "roles": list(roles),
        "may_set": "SET" if has_options else "MEMBER",
        "has_options": has_options,
    }
    rows = connection.execute(_USES, values).fetchall()
    return tuple(
        frozenset((a, b) for a, b, *held in rows if held[place]) for place in range(3)
    )


def _fetch(
    connection: Connection, kind: type[T], query: LiteralString, values: Any = None
) -> list[T]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, values).fetchall()


def _column(
    connection: Connection, query: LiteralString, values: dict[str, Any]
) -> list[Any]:
    return [row[0] for row in connection.execute(query, values).fetchall()]


def is_of_service(role: str) -> bool:
    """Return whether *role* belongs to the service or to PostgreSQL."""
    return role.startswith(("pg_", SERVICE_PREFIX)) or role == "cloud_admin"


def count_by_owner(relations: Iterable[Relation]) -> dict[str, int]:
    """Return the number of tables of each owner."""
    owners: dict[str, int] = {}
    for relation in relations:
        if relation.kind == "TABLE":
            owners[relation.owner] = owners.get(relation.owner, 0) + 1
    return owners
