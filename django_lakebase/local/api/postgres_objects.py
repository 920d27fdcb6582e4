"""What the handlers for roles and databases share: both are stored in PostgreSQL."""

import re
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

from aiohttp import web

from django_lakebase.local.postgres.sql import Database, Role
from django_lakebase.local.state.model import Branch

from .errors import not_found
from .operations import DELETED, Json
from .params import ROLE_ID, paginate
from .resources import Resources

T = TypeVar("T", Role, Database)
Work: TypeAlias = Coroutine[Any, Any, None]


class PostgresObjectHandlers(ABC, Generic[T]):
    """
    Handles requests for roles or databases; validates each before changing anything.

    *kind* is ``role`` or ``database``.
    """

    kind: str

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    @abstractmethod
    async def _fetch(self, branch: Branch) -> dict[str, T]:
        """Fetch the objects of *branch* by their ids."""

    @abstractmethod
    def _serialize(self, branch: Branch, key: str, item: T) -> Json:
        """Return *item*, which has the id *key*, as JSON."""

    async def list_all(self, request: web.Request) -> Json:
        """Return a page of the objects of a branch."""
        branch = self._resources.find_branch(request)
        objects = await self._fetch(branch)
        items = [self._serialize(branch, *pair) for pair in objects.items()]
        return paginate(request, f"{self.kind}s", items)

    async def get(self, request: web.Request) -> Json:
        """Return an object."""
        return self._serialize(*await self._find_in_path(request))

    async def find(self, branch: Branch, key: str) -> T:
        """Return the object of *branch* with the id *key*; raises ApiError."""
        item = (await self._fetch(branch)).get(key)
        if item is None:
            raise not_found(self.kind)
        return item

    async def _find_in_path(self, request: web.Request) -> tuple[Branch, str, T]:
        branch = self._resources.find_branch(request)
        key = request.match_info[f"{self.kind}_id"]
        return branch, key, await self.find(branch, key)

    def _start(
        self, branch: Branch, key: str, work: Work, *, drops: bool = False
    ) -> Json:
        """Start an operation that creates, alters or *drops* the object *key*."""

        async def run() -> Json:
            await work
            self._resources.save()
            if drops:
                return DELETED
            return self._serialize(branch, key, await self.find(branch, key))

        name = f"{branch.name}/{self.kind}s/{key}"
        return self._resources.operations.start(name, self.kind.capitalize(), run())


def choose_id(name: str, known: Mapping[str, str], prefix: str) -> str:
    """
    Return the id of the role or database that PostgreSQL calls *name*.

    *known* has the names by the id that the API gave. A name that was created with SQL
    has no such id: it is derived from the name, with *prefix* if it is invalid without.
    """
    for key, value in known.items():
        if value == name:
            return key
    derived = re.sub("[^a-z0-9-]", "-", name.lower()).strip("-")
    is_valid = ROLE_ID.fullmatch(derived) is not None
    return derived[:63] if is_valid else f"{prefix}-{derived}"[:63].rstrip("-")
