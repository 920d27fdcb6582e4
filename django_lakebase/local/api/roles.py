"""Handlers for roles, which are read and changed in PostgreSQL."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.postgres import sql
from django_lakebase.local.postgres.admin_connection import AdminConnection
from django_lakebase.local.postgres.sql import Role
from django_lakebase.local.state.model import Branch

from .errors import bad_request, invalid, required
from .operations import Json
from .params import ROLE_ID, read_masked_spec, read_spec, validate_id
from .postgres_objects import PostgresObjectHandlers, choose_id
from .serializers import serialize_role

IDENTITY_TYPES = ("USER", "SERVICE_PRINCIPAL", "GROUP")
AUTH_METHODS = ("LAKEBASE_OAUTH_V1", "PG_PASSWORD_SCRAM_SHA_256", "NO_LOGIN")
ATTRIBUTES = ("bypassrls", "createdb", "createrole")


class RoleHandlers(PostgresObjectHandlers[Role]):
    """Handles requests for roles."""

    kind = "role"

    async def _fetch(self, branch: Branch) -> dict[str, Role]:
        roles = await sql.fetch_roles(self._resources.get_admin(branch))
        return {choose_id(role.name, branch.roles, "role"): role for role in roles}

    def _serialize(self, branch: Branch, key: str, item: Role) -> Json:
        return serialize_role(branch.name, key, item)

    async def create(self, request: web.Request) -> Json:
        """Create a role, for an identity or with a generated password."""
        branch = self._resources.find_branch(request)
        spec = await read_spec(request)
        name = str(spec.get("postgres_role") or "")
        if not name:
            raise required("role.spec.postgres_role")
        role_id = request.query.get("role_id", "") or choose_id(name, {}, "role")
        validate_id("role_id", role_id, ROLE_ID)
        identity_type = _parse_identity_type(spec)
        method = _parse_auth_method(spec, identity_type)
        admin = self._resources.get_admin(branch)
        roles = await self._fetch(branch)
        exists = role_id in roles or any(role.name == name for role in roles.values())
        if exists and request.query.get("replace_existing") == "true":
            role = await self.find(branch, role_id)
            work = _alter_role(admin, role.name, spec)
            return self._start(branch, role_id, work)
        if exists:
            raise bad_request("role with that name already exists")

        async def create() -> None:
            await sql.create_role(
                admin, name, identity_type, can_log_in=method != AUTH_METHODS[2]
            )
            branch.roles[role_id] = name
            if method == AUTH_METHODS[1]:
                branch.passwords[name] = await sql.reset_password(admin, name)
            await _alter_role(admin, name, spec)

        return self._start(branch, role_id, create())

    async def update(self, request: web.Request) -> Json:
        """Update the fields in the update mask."""
        branch, role_id, role = await self._find_in_path(request)
        fields = await read_masked_spec(request)
        work = _alter_role(self._resources.get_admin(branch), role.name, fields)
        return self._start(branch, role_id, work)

    async def delete(self, request: web.Request) -> Json:
        """
        Drop a role, after giving its objects to the role in ``reassign_owned_to``.

        Without that parameter, the operation fails if the role owns objects.
        """
        branch, role_id, role = await self._find_in_path(request)
        admin = self._resources.get_admin(branch)
        target = request.query.get("reassign_owned_to", "")
        new_owner = ""
        if target:
            new_owner = (await self.find(branch, target.rpartition("/")[2])).name

        async def drop() -> None:
            await sql.drop_role(admin, role.name, new_owner)
            branch.roles.pop(role_id, None)
            branch.passwords.pop(role.name, None)

        return self._start(branch, role_id, drop(), drops=True)

    async def reveal_password(self, request: web.Request) -> Json:
        """Return the generated password of a role; raises ApiError."""
        branch, _, role = await self._find_in_path(request)
        if role.name not in branch.passwords:
            raise bad_request("role has no password that could be revealed")
        return {"password": branch.passwords[role.name]}


async def _alter_role(
    admin: AdminConnection, name: str, fields: Mapping[str, Any]
) -> None:
    await sql.alter_role(
        admin, name, _parse_attributes(fields), _parse_superuser(fields)
    )


def _parse_identity_type(spec: Mapping[str, Any]) -> str:
    identity_type = str(spec.get("identity_type") or "")
    if identity_type in ("", "IDENTITY_TYPE_UNSPECIFIED"):
        return ""
    if identity_type not in IDENTITY_TYPES:
        raise invalid(f"Field 'role.spec.identity_type' is '{identity_type}'.")
    return identity_type


def _parse_auth_method(spec: Mapping[str, Any], identity_type: str) -> str:
    method = str(spec.get("auth_method") or AUTH_METHODS[0 if identity_type else 1])
    if method not in AUTH_METHODS or (method == AUTH_METHODS[0]) != bool(identity_type):
        raise invalid(
            f"Field 'role.spec.auth_method' is '{method}', which is not valid for "
            f"identity_type '{identity_type}'."
        )
    return method


def _parse_attributes(spec: Mapping[str, Any]) -> dict[str, bool]:
    attributes = spec.get("attributes") or {}
    return {name: bool(attributes[name]) for name in ATTRIBUTES if name in attributes}


def _parse_superuser(spec: Mapping[str, Any]) -> bool | None:
    memberships = spec.get("membership_roles")
    return None if memberships is None else "DATABRICKS_SUPERUSER" in memberships
