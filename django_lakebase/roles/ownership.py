"""Changes of owner: which role can make them, and what it needs for that."""

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from operator import attrgetter

from . import statements
from .change import Change, change, count, listed
from .facts import Facts, OwnedObject


def plan_ownership(
    facts: Facts, new_owner: str, objects: Iterable[OwnedObject]
) -> Iterator[Change]:
    """
    Yield the changes after which *new_owner* owns *objects*.

    PostgreSQL requires that one role has the privileges of the old owner and may switch
    to the new one. That is the old owner, or the owner of the database, who may have to
    join one of them; else the old owner has to become a member of the new one.
    """
    in_order = sorted(objects, key=attrgetter("owner", "kind", "identity"))
    for owner, owned in groupby(in_order, attrgetter("owner")):
        yield from _change_owner(facts, owner, new_owner, list(owned))


def can_become_owner(facts: Facts, role: str, owners: Collection[str]) -> bool:
    """Return whether the SQL of `plan_ownership` can give *role* what *owners* own."""
    return all(
        (facts.executor_for(owner), role) in facts.may_set
        or (facts.database.owner, role) in facts.may_set | facts.may_grant
        for owner in owners
    )


def _change_owner(
    facts: Facts, owner: str, new_owner: str, objects: list[OwnedObject]
) -> Iterator[Change]:
    database, prepared, role = facts.database, [], facts.executor_for(owner)
    if (role, new_owner) not in facts.may_set:
        can_join = facts.may_set | facts.may_grant
        if {(database.owner, owner), (database.owner, new_owner)} <= can_join:
            role = database.owner
            prepared = [
                statements.grant_membership(group, role, database.version)
                for group in (owner, new_owner)
                if (role, group) not in facts.may_set
            ]
        else:
            yield change(
                "membership",
                database.owner,
                f'"{owner}" is not a member of "{new_owner}"',
                statements.grant_membership(new_owner, owner, database.version),
            )
    names = [item.name or item.identity for item in objects]
    noun = count(len(names), "object")
    detail = f'{noun} of "{owner}" should belong to "{new_owner}": {listed(names)}'
    changed = _change_statements(facts, owner, new_owner, objects)
    yield change("ownership", role, detail, *prepared, *changed)


def _change_statements(
    facts: Facts, owner: str, new_owner: str, objects: list[OwnedObject]
) -> list[str]:
    # REASSIGN OWNED would also change the owner of the database, and of other projects.
    if sum(item.owner == owner for item in facts.objects) == len(objects):
        return [statements.reassign_owned(owner, new_owner)]
    return [
        statements.change_owner(item.kind, item.identity, new_owner) for item in objects
    ]
