"""
The changes that give a role what it needs: desired state, compared with the catalog.

`plan` is pure. It returns nothing for a database in the desired state, so running its
statements twice changes nothing, and what is left after running them could not be done.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

from django_lakebase.base import MEMBERSHIP_OPTIONS_VERSION

from . import statements
from .change import Change, change, count, listed
from .facts import (
    Facts,
    OwnedObject,
    Relation,
    Request,
    count_by_owner,
    is_of_service,
)
from .ownership import plan_ownership
from .statements import (
    READ_ONLY_PRIVILEGES,
    SEQUENCE_PRIVILEGES,
    TABLE_PRIVILEGES,
)


def plan(request: Request, facts: Facts) -> list[Change]:
    """Return the changes that *request* needs, in the order to make them."""
    return list(_Plan(request, facts).changes())


class _Plan:
    def __init__(self, request: Request, facts: Facts) -> None:
        self._request, self._facts = request, facts
        self._database = facts.database
        self._grantee = request.grantee

    def changes(self) -> Iterator[Change]:
        yield from self._roles()
        yield from self._memberships()
        yield from self._grants()
        taken: set[str] = set()
        if self._grantee == self._request.owner_role:
            # The rest is planned as if the members had been added.
            self._facts = self._with_members()
            objects = [item for item in self._facts.objects if self._is_taken(item)]
            taken = {item.table for item in objects}
            yield from plan_ownership(self._facts, self._grantee, objects)
        relations = [r for r in self._facts.relations if r.table not in taken]
        yield from self._relations("table-privileges", "TABLE", relations)
        yield from self._relations("sequence-privileges", "SEQUENCE", relations)
        yield from self._defaults()
        yield from self._read_only()

    def _roles(self) -> Iterator[Change]:
        request, facts, owner = self._request, self._facts, self._database.owner
        if request.role not in facts.roles:
            created = [
                statements.create_oauth_role(request.role, request.identity_type)
            ]
            if not self._database.has_auth_extension:
                created.insert(0, statements.CREATE_AUTH_EXTENSION)
            detail = f'the role "{request.role}" does not exist'
            yield change("role", owner, detail, *created)
        if self._grantee not in facts.roles and self._grantee != request.role:
            detail = f'the role "{self._grantee}" does not exist'
            statement = statements.create_group_role(self._grantee)
            yield change("owner-role", owner, detail, statement)

    def _memberships(self) -> Iterator[Change]:
        """Let the role use the owner role; the runner too, to give it the tables."""
        group, database = self._request.owner_role, self._database
        if self._grantee != group:
            return
        for member in dict.fromkeys((self._request.role, database.runner)):
            if not self._is_member(member, group):
                statement = statements.grant_membership(group, member, database.version)
                detail = f'"{member}" is not a member of "{group}"'
                yield change("membership", database.owner, detail, statement)

    def _is_member(self, member: str, group: str) -> bool:
        pair = member, group
        # Before that version, the role's own attribute INHERIT decides.
        has_options = self._database.version >= MEMBERSHIP_OPTIONS_VERSION
        uses = pair in self._facts.uses or not has_options
        return member == group or (uses and pair in self._facts.may_set)

    def _with_members(self) -> Facts:
        group, facts = self._grantee, self._facts
        pairs = {(self._request.role, group), (self._database.runner, group)}
        may_grant = facts.may_grant
        if group not in facts.roles:
            # It will be created by the owner of the database.
            may_grant |= {(self._database.owner, group)}
        return replace(
            facts,
            uses=facts.uses | pairs,
            may_set=facts.may_set | pairs,
            may_grant=may_grant,
        )

    def _grants(self) -> Iterator[Change]:
        database, facts, request = self._database, self._facts, self._request
        wanted = ["CONNECT"]
        if not database.schema_exists and not request.is_read_only:
            wanted.append("CREATE")
        if missing := [name for name in wanted if name not in facts.held]:
            yield change(
                "database-privileges",
                database.owner,
                self._lacks(missing, f'the database "{database.name}"'),
                statements.grant_database(missing, database.name, self._grantee),
            )
        if not database.schema_exists:
            return
        wanted = ["USAGE"] if request.is_read_only else ["USAGE", "CREATE"]
        if missing := [name for name in wanted if name not in facts.held_on_schema]:
            owned = count_by_owner(facts.relations).get(self._grantee, 0)
            detail = self._lacks(missing, f'the schema "{database.schema}"')
            if owned:
                detail += (
                    f", where it owns {count(owned, 'table')}. If the database was "
                    "attached to a Databricks App again, that has reset the privileges"
                )
            yield change(
                "schema-reset" if owned else "schema-privileges",
                facts.executor_for(database.schema_owner),
                detail,
                statements.grant_schema(missing, database.schema, self._grantee),
            )

    def _relations(
        self, change_id: str, kind: str, relations: list[Relation]
    ) -> Iterator[Change]:
        """Yield the grants on existing relations, for each of their owners."""
        wanted = self._wanted(kind)
        lacking = [
            relation
            for relation in relations
            if relation.kind == kind and not set(wanted) <= set(relation.held)
        ]
        for owner, group in groupby(
            sorted(lacking, key=attrgetter("owner", "name")), attrgetter("owner")
        ):
            owned = list(group)
            names = [relation.name for relation in owned]
            missing = [
                privilege
                for privilege in wanted
                if any(privilege not in relation.held for relation in owned)
            ]
            noun = count(len(names), kind.lower())
            relations_of_owner = f'{noun} of "{owner}": {listed(names)}'
            yield change(
                change_id,
                self._facts.executor_for(owner),
                self._lacks(missing, relations_of_owner),
                statements.grant_relations(
                    missing, self._name_relations(kind, names), self._grantee
                ),
            )

    def _name_relations(self, kind: str, names: list[str]) -> str:
        """Return the relations for a GRANT: all of the schema if these are all."""
        schema = self._database.schema
        everything = {r.name for r in self._facts.relations if r.kind == kind}
        if everything == set(names) and kind not in self._facts.kinds_of_others:
            return statements.all_relations_of(kind, schema)
        return statements.relations_of(kind, schema, names)

    def _wanted(self, kind: str) -> tuple[str, ...]:
        if self._request.is_read_only:
            return READ_ONLY_PRIVILEGES
        return TABLE_PRIVILEGES if kind == "TABLE" else SEQUENCE_PRIVILEGES

    def _defaults(self) -> Iterator[Change]:
        """Yield the privileges on the relations that other roles will create."""
        if not self._database.schema_exists:
            return
        schema, grantee = self._database.schema, self._grantee
        for creator in self._other_creators():
            actions = []
            for kind in ("TABLE", "SEQUENCE"):
                wanted = self._wanted(kind)
                if any(
                    (creator, kind, privilege) not in self._facts.defaults
                    for privilege in wanted
                ):
                    action = statements.grant_default(wanted, kind, grantee)
                    actions.append(
                        statements.default_privileges(creator, schema, action)
                    )
            if actions:
                yield change(
                    "default-privileges",
                    self._facts.executor_for(creator),
                    f'"{grantee}" will not have all privileges on the tables and '
                    f'sequences that "{creator}" creates',
                    *actions,
                )

    def _other_creators(self) -> list[str]:
        """Return the roles whose new tables the grantee would not own."""
        facts, request = self._facts, self._request
        if not request.is_read_only and request.owner_role:
            # The members create tables as the owner role.
            return []
        creators = {r.owner for r in facts.relations if request.migrates(r.table)}
        if request.plans_ahead:
            runner = self._database.runner
            creators |= {c for c in facts.creators if (runner, c) in facts.uses}
            if request.owner_role in facts.roles:
                creators.add(request.owner_role)
        return sorted(
            creator
            for creator in creators
            if (self._grantee, creator) not in facts.uses
            and creator != self._grantee
            and not is_of_service(creator)
        )

    def _read_only(self) -> Iterator[Change]:
        request, role = self._request, self._facts.roles.get(self._request.role)
        if not request.plans_ahead or request.is_read_only == (
            role is not None and role.is_read_only
        ):
            return
        if request.is_read_only:
            detail = f'transactions of "{request.role}" are not read-only'
            statement = statements.set_read_only(request.role)
        else:
            detail = f'transactions of "{request.role}" are read-only'
            statement = statements.reset_read_only(request.role)
        yield change("read-only", self._database.owner, detail, statement)

    def _is_taken(self, item: OwnedObject) -> bool:
        """Return whether *item* belongs to the project, but not to the owner role."""
        is_project = (
            self._request.migrates(item.table)
            if item.name
            else bool(self._request.schema)
        )
        is_here = item.schema == self._database.schema
        return is_here and is_project and item.owner != self._grantee

    def _lacks(self, privileges: Iterable[str], on: str) -> str:
        return f'"{self._grantee}" lacks {", ".join(privileges)} on {on}'
