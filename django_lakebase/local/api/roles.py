"""Roles and databases over the API: read from PostgreSQL, and changed there."""

import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.postgres import provision
from django_lakebase.local.postgres.admin import Backdoor
from django_lakebase.local.postgres.provision import Database, Role
from django_lakebase.local.state.model import Branch, Project, branch_name

from . import serializers
from .operations import DELETED, Json
from .params import (
    ID,
    SHORT_ID,
    bad_request,
    checked_id,
    exists,
    invalid,
    masked,
    not_found,
    page_of,
    read_object,
    required,
)
from .resources import Tree

IDENTITIES = ("USER", "SERVICE_PRINCIPAL", "GROUP")
METHODS = ("LAKEBASE_OAUTH_V1", "PG_PASSWORD_SCRAM_SHA_256", "NO_LOGIN")
ATTRIBUTES = ("bypassrls", "createdb", "createrole")


def id_of(name: str, known: Mapping[str, str], prefix: str) -> str:
    """Return the id of what PostgreSQL calls *name*: the API's, or one made of it."""
    for key, value in known.items():
        if value == name:
            return key
    made = re.sub("[^a-z0-9-]", "-", name.lower()).strip("-")
    is_one = SHORT_ID.fullmatch(made) is not None
    return made[:63] if is_one else f"{prefix}-{made}"[:63].rstrip("-")


class Residents:
    """The roles and databases of branches."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def _door(self, branch: Branch) -> Backdoor:
        compute = self._tree.fleet.find(branch.folder)
        if compute is None:
            raise bad_request(f"branch is not ready: {branch.state}")
        return compute.door

    # Roles.

    async def _roles(self, branch: Branch) -> dict[str, Role]:
        found = await provision.roles(self._door(branch))
        return {id_of(role.name, branch.roles, "role"): role for role in found}

    async def list_roles(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Answer with the roles of *branch*."""
        parent = branch_name(project, branch)
        found = await self._roles(branch)
        return page_of(
            request,
            "roles",
            [serializers.role(parent, key, it) for key, it in found.items()],
        )

    async def show_role(self, project: Project, branch: Branch, role_id: str) -> Json:
        """Answer with one role."""
        role = await self._role(branch, role_id)
        return serializers.role(branch_name(project, branch), role_id, role)

    async def _role(self, branch: Branch, role_id: str) -> Role:
        role = (await self._roles(branch)).get(role_id)
        if role is None:
            raise not_found("role")
        return role

    async def create_role(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Make a role, for an identity or with a password of its own."""
        spec = (await read_object(request)).get("spec") or {}
        name = str(spec.get("postgres_role") or "")
        if not name:
            raise required("role.spec.postgres_role")
        role_id = request.query.get("role_id", "") or id_of(name, {}, "role")
        checked_id("role_id", role_id, SHORT_ID)
        kind = _identity_type(spec)
        method = _method(spec, kind)
        parent, door = branch_name(project, branch), self._door(branch)
        found = await self._roles(branch)
        taken = role_id in found or any(it.name == name for it in found.values())
        if taken and request.query.get("replace_existing") == "true":
            return await self._change_role(project, branch, role_id, spec)
        if taken:
            raise bad_request("role with that name already exists")

        async def work() -> Json:
            await provision.create_role(
                door, name, kind, can_log_in=method != METHODS[2]
            )
            branch.roles[role_id] = name
            if method == METHODS[1]:
                branch.passwords[name] = await provision.new_password(door, name)
            await provision.change_role(door, name, _attributes(spec), _is_super(spec))
            self._tree.save()
            return await self.show_role(project, branch, role_id)

        operations = self._tree.operations
        return operations.start(f"{parent}/roles/{role_id}", "Role", work())

    async def update_role(
        self, request: web.Request, project: Project, branch: Branch, role_id: str
    ) -> Json:
        """Change what the mask names."""
        body = await read_object(request)
        fields = masked(request, body.get("spec") or {})
        return await self._change_role(project, branch, role_id, fields)

    async def _change_role(
        self, project: Project, branch: Branch, role_id: str, fields: Mapping[str, Any]
    ) -> Json:
        role, door = await self._role(branch, role_id), self._door(branch)

        async def work() -> Json:
            rights, membership = _attributes(fields), _is_super(fields)
            await provision.change_role(door, role.name, rights, membership)
            return await self.show_role(project, branch, role_id)

        name = f"{branch_name(project, branch)}/roles/{role_id}"
        return self._tree.operations.start(name, "Role", work())

    async def delete_role(
        self, request: web.Request, project: Project, branch: Branch, role_id: str
    ) -> Json:
        """Drop a role; what it owns goes to another, or it stays."""
        role, door = await self._role(branch, role_id), self._door(branch)
        heir = request.query.get("reassign_owned_to", "")
        heir_role = heir and (await self._role(branch, heir.rpartition("/")[2])).name

        async def work() -> Json:
            await provision.drop_role(door, role.name, heir_role)
            branch.roles.pop(role_id, None)
            branch.passwords.pop(role.name, None)
            self._tree.save()
            return DELETED

        name = f"{branch_name(project, branch)}/roles/{role_id}"
        return self._tree.operations.start(name, "Role", work())

    async def reveal_password(self, branch: Branch, role_id: str) -> Json:
        """Answer with the password that was made for a role."""
        role = await self._role(branch, role_id)
        if role.name not in branch.passwords:
            raise bad_request("role has no password that could be revealed")
        return {"password": branch.passwords[role.name]}

    # Databases.

    async def _databases(self, branch: Branch) -> dict[str, Database]:
        found = await provision.databases(self._door(branch))
        return {id_of(it.name, branch.databases, "db"): it for it in found}

    async def list_databases(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Answer with the databases of *branch*."""
        parent = branch_name(project, branch)
        found = await self._databases(branch)
        shown = [_shown(parent, branch, key, it) for key, it in found.items()]
        return page_of(request, "databases", shown)

    async def show_database(
        self, project: Project, branch: Branch, database_id: str
    ) -> Json:
        """Answer with one database."""
        it = await self._database(branch, database_id)
        return _shown(branch_name(project, branch), branch, database_id, it)

    async def _database(self, branch: Branch, database_id: str) -> Database:
        database = (await self._databases(branch)).get(database_id)
        if database is None:
            raise not_found("database")
        return database

    async def create_database(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Make a database, which one of the branch's roles owns."""
        spec = (await read_object(request)).get("spec") or {}
        name = str(spec.get("postgres_database") or "")
        if not name:
            raise required("database.spec.postgres_database")
        if not spec.get("role"):
            raise required("database.spec.role")
        database_id = request.query.get("database_id", "") or id_of(name, {}, "db")
        checked_id("database_id", database_id, ID)
        owner = await self._role(branch, str(spec["role"]).rpartition("/")[2])
        found = await self._databases(branch)
        if any(it.name == name for it in found.values()):
            raise bad_request("database with that name already exists")
        if database_id in found:
            raise exists("database with such id already exists")
        door = self._door(branch)

        async def work() -> Json:
            await provision.create_database(door, name, owner.name)
            branch.databases[database_id] = name
            self._tree.save()
            return await self.show_database(project, branch, database_id)

        full = f"{branch_name(project, branch)}/databases/{database_id}"
        return self._tree.operations.start(full, "Database", work())

    async def update_database(
        self, request: web.Request, project: Project, branch: Branch, database_id: str
    ) -> Json:
        """Rename a database, or give it another owner."""
        it, door = await self._database(branch, database_id), self._door(branch)
        body = await read_object(request)
        fields = masked(request, body.get("spec") or {})
        name = str(fields.get("postgres_database") or it.name)
        role = str(fields.get("role") or "").rpartition("/")[2]
        owner = (await self._role(branch, role)).name if role else it.owner

        async def work() -> Json:
            await provision.change_database(door, it.name, name, owner)
            branch.databases[database_id] = name
            self._tree.save()
            return await self.show_database(project, branch, database_id)

        full = f"{branch_name(project, branch)}/databases/{database_id}"
        return self._tree.operations.start(full, "Database", work())

    async def delete_database(
        self, project: Project, branch: Branch, database_id: str
    ) -> Json:
        """Drop a database, ending its sessions."""
        it, door = await self._database(branch, database_id), self._door(branch)

        async def work() -> Json:
            await provision.drop_database(door, it.name)
            branch.databases.pop(database_id, None)
            self._tree.save()
            return DELETED

        full = f"{branch_name(project, branch)}/databases/{database_id}"
        return self._tree.operations.start(full, "Database", work())


def _shown(parent: str, branch: Branch, database_id: str, it: Database) -> Json:
    owner_id = id_of(it.owner, branch.roles, "role")
    shown: Json = serializers.database(parent, database_id, owner_id, it)
    return shown


def _identity_type(spec: Mapping[str, Any]) -> str:
    kind = str(spec.get("identity_type") or "")
    if kind in ("", "IDENTITY_TYPE_UNSPECIFIED"):
        return ""
    if kind not in IDENTITIES:
        raise invalid(f"Field 'role.spec.identity_type' is '{kind}'.")
    return kind


def _method(spec: Mapping[str, Any], kind: str) -> str:
    method = str(spec.get("auth_method") or METHODS[0 if kind else 1])
    if method not in METHODS or (method == METHODS[0]) != bool(kind):
        raise invalid(
            f"Field 'role.spec.auth_method' is '{method}', which does not go with "
            f"identity_type '{kind}'."
        )
    return method


def _attributes(spec: Mapping[str, Any]) -> dict[str, bool]:
    given = spec.get("attributes") or {}
    return {name: bool(given[name]) for name in ATTRIBUTES if name in given}


def _is_super(spec: Mapping[str, Any]) -> bool | None:
    given = spec.get("membership_roles")
    return None if given is None else "DATABRICKS_SUPERUSER" in given
