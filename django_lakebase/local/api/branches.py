"""Handlers for branches: create, read, update, delete and undelete."""

import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.postgres import sql
from django_lakebase.local.state.model import (
    BRANCH,
    ENDPOINT,
    Branch,
    Endpoint,
    Project,
)

from .errors import (
    already_exists,
    bad_request,
    invalid,
    managed_by_parent,
    not_found,
)
from .operations import DELETED, Json
from .params import (
    DAY,
    paginate,
    parse_bool,
    parse_duration,
    parse_timestamp,
    read_masked_spec,
    read_spec,
    validate_id,
    wants_deleted,
    wants_purge,
)
from .resources import Resources
from .serializers import serialize_branch

# Seconds during which a new branch rejects logins. The service does so while it
# propagates the branch's roles.
LOGIN_DELAY = 1.0
MAX_TTL = 30 * DAY


class BranchHandlers:
    """Handles requests for branches; validates each before changing anything."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def get(self, request: web.Request) -> Json:
        """Return a branch."""
        return await self._serialize(self._resources.find_branch(request))

    async def list_all(self, request: web.Request) -> Json:
        """Return a page of the branches of a project."""
        project = self._resources.find_project(request)
        branches = (
            project.branches.values()
            if wants_deleted(request)
            else project.live_branches
        )
        items = [await self._serialize(branch) for branch in branches]
        return paginate(request, "branches", items)

    async def create(self, request: web.Request) -> Json:
        """Copy the source branch with its databases, roles and rows."""
        project = self._resources.find_project(request)
        branch_id = validate_id("branch_id", request.query.get("branch_id", ""))
        spec = await read_spec(request)
        if branch_id in project.branches:
            is_deleted = project.branches[branch_id].is_deleted
            if is_deleted or request.query.get("replace_existing") != "true":
                raise already_exists("branch with such id already exists")
            return await self._update(project.branches[branch_id], spec)
        branch = Branch(id=branch_id, parent=project.name)
        _apply_expiry(branch, spec, is_required=True)
        branch.is_protected = bool(spec.get("is_protected"))
        _check_expiry(branch)
        for field in ("source_branch_lsn", "source_branch_time", "source_snapshot"):
            if spec.get(field):
                raise invalid(
                    f"Field 'spec.{field}' is not supported by the local Lakebase."
                )
        source = self._find_source(project, spec)
        branch.source = source.name
        branch.endpoints[ENDPOINT] = Endpoint(
            id=ENDPOINT, suspend_after=project.suspend_after
        )
        branch.roles, branch.databases = dict(source.roles), dict(source.databases)
        branch.passwords = dict(source.passwords)
        project.branches[branch_id] = branch

        async def work() -> Json:
            try:
                branch.source_lsn = await self._resources.computes.create_copy(
                    source, branch
                )
                if source.is_protected:
                    await self._reset_passwords(branch)
            except BaseException:
                del project.branches[branch_id]
                raise
            branch.set_state("READY")
            branch.accepts_logins_at = time.time() + LOGIN_DELAY
            self._resources.save()
            return await self._serialize(branch)

        return self._resources.operations.start(branch.name, "Branch", work())

    async def update(self, request: web.Request) -> Json:
        """Update the fields in the update mask."""
        branch = self._resources.find_branch(request)
        return await self._update(branch, await read_masked_spec(request))

    async def delete(self, request: web.Request) -> Json:
        """Delete a branch; ``purge=true`` deletes it permanently."""
        project = self._resources.find_project(request)
        branch = self._resources.find_branch(request)
        if branch.is_default:
            raise managed_by_parent(
                f"Cannot delete root branch '{branch.name}'. Root branches cannot be "
                "deleted independently."
            )
        if branch.is_protected:
            raise bad_request("cannot delete protected branch")
        if any(other.source == branch.name for other in project.live_branches):
            raise bad_request("cannot delete branch with children")
        is_purge = wants_purge(request)
        branch.deleted_at = time.time()

        async def work() -> Json:
            await self._resources.stop_servers(branch)
            if is_purge:
                await self._resources.purge_branch(project, branch)
            self._resources.save()
            return DELETED

        return self._resources.operations.start(branch.name, "Branch", work())

    async def undelete(self, request: web.Request) -> Json:
        """Restore a deleted branch."""
        project = self._resources.find_project(request)
        branch = project.branches.get(request.match_info["branch_id"])
        if branch is None:
            raise not_found("branch")
        if not branch.is_deleted:
            raise bad_request("branch is not deleted")

        async def work() -> Json:
            await self._resources.computes.start(branch)
            branch.deleted_at = branch.expires_at = None
            self._resources.save()
            return await self._serialize(branch)

        return self._resources.operations.start(branch.name, "Branch", work())

    async def _serialize(self, branch: Branch) -> Json:
        compute = self._resources.computes.find(branch.folder)
        size = await sql.fetch_size(compute.admin) if compute else 0
        return serialize_branch(branch, size)

    async def _update(self, branch: Branch, fields: Mapping[str, Any]) -> Json:
        original = branch.expires_at, branch.is_protected
        try:
            _apply_expiry(branch, fields, is_required=False)
            if fields.get("is_protected") is not None:
                branch.is_protected = parse_bool(
                    "spec.is_protected", fields["is_protected"]
                )
            _check_expiry(branch)
        except BaseException:
            branch.expires_at, branch.is_protected = original
            raise
        branch.touch()
        self._resources.save()
        response = await self._serialize(branch)
        return self._resources.complete(branch.name, "Branch", response)

    def _find_source(self, project: Project, spec: Mapping[str, Any]) -> Branch:
        name = spec.get("source_branch") or ""
        if not name:
            return project.default_branch
        prefix, _, branch_id = str(name).rpartition("/branches/")
        if prefix != project.name:
            raise invalid(f"Field 'spec.source_branch' is not in {project.name}.")
        source = self._resources.get_branch(project, branch_id)
        if source.current_state != "READY":
            raise bad_request(f"source branch is not ready: {source.current_state}")
        return source

    async def _reset_passwords(self, branch: Branch) -> None:
        # The service gives a copy of a protected branch new passwords.
        admin = self._resources.computes.get(branch).admin
        for role in await sql.fetch_roles(admin):
            if role.has_password:
                password = await sql.reset_password(admin, role.name)
                branch.passwords[role.name] = password


def _apply_expiry(
    branch: Branch, fields: Mapping[str, Any], *, is_required: bool
) -> None:
    names = ("ttl", "expire_time", "no_expiry")
    given = [name for name in names if fields.get(name) is not None]
    if len(given) > 1:
        raise invalid(f"Only one of {', '.join(names)} may be set.")
    if not given:
        if is_required:
            raise invalid(
                "One of 'spec.ttl', 'spec.expire_time' or 'spec.no_expiry' is required."
            )
        return
    if given != ["no_expiry"]:
        branch.expires_at = _parse_expiry(given[0], fields[given[0]])
    elif parse_bool("spec.no_expiry", fields["no_expiry"]):
        branch.expires_at = None
    else:
        raise invalid("Field 'spec.no_expiry' may only be true.")


def _parse_expiry(name: str, value: object) -> float:
    now = time.time()
    if name == "ttl":
        expires_at = now + parse_duration("spec.ttl", value, 1, float("inf"))
    else:
        expires_at = parse_timestamp("spec.expire_time", value)
    if expires_at <= now:
        raise invalid("expiration time must be in the future")
    if expires_at > now + MAX_TTL:
        raise invalid("expiration time exceeds the maximum expiration time")
    return expires_at


def _check_expiry(branch: Branch) -> None:
    if branch.expires_at is None:
        return
    if branch.is_default or branch.id == BRANCH:
        raise bad_request("default branch cannot have an expiration time")
    if branch.is_protected:
        raise bad_request("protected branch cannot have an expiration time")
