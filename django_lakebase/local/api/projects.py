"""Handlers for projects: create, list, update, delete and undelete."""

import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.state.model import Project

from .errors import already_exists, bad_request, invalid, not_found
from .operations import DELETED, Json
from .params import (
    DAY,
    paginate,
    parse_bool,
    parse_duration,
    parse_suspend_timeout,
    read_masked_spec,
    read_spec,
    validate_id,
    wants_deleted,
    wants_purge,
)
from .resources import Resources
from .serializers import serialize_project

RETENTION_BOUNDS = (2 * DAY, 35 * DAY)


class ProjectHandlers:
    """Handles requests for projects; validates each before changing anything."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def list_all(self, request: web.Request) -> Json:
        """Return a page of the projects."""
        state = self._resources.state
        projects = (
            state.projects.values() if wants_deleted(request) else state.live_projects
        )
        return paginate(request, "projects", [serialize_project(p) for p in projects])

    async def get(self, request: web.Request) -> Json:
        """Return a project."""
        return serialize_project(self._resources.find_project(request))

    async def create(self, request: web.Request) -> Json:
        """Create a project with its default branch and endpoint."""
        project_id = validate_id("project_id", request.query.get("project_id", ""))
        spec = await read_spec(request)
        if project_id in self._resources.state.projects:
            raise already_exists("project with such id already exists in the workspace")
        pg_version = self._resources.state.default_project.pg_version
        if spec.get("pg_version", pg_version) != pg_version:
            raise invalid(
                f"Field 'spec.pg_version' must be {pg_version}, the PostgreSQL version "
                f"of the local Lakebase, got '{spec['pg_version']}'."
            )
        project = Project(
            id=project_id,
            display_name=project_id,
            owner=request["identity"],
            pg_version=pg_version,
        )
        _apply_fields(project, spec)
        initial = spec.get("initial_branch_spec") or {}
        branch = project.add_default_branch(
            is_protected=bool(initial.get("is_protected"))
        )
        self._resources.state.projects[project_id] = project

        async def work() -> Json:
            await self._resources.computes.create(project, branch)
            branch.set_state("READY")
            self._resources.save()
            return serialize_project(project)

        return self._resources.operations.start(project.name, "Project", work())

    async def update(self, request: web.Request) -> Json:
        """Update the fields in the update mask."""
        project = self._resources.find_project(request)
        _apply_fields(project, await read_masked_spec(request))
        project.touch()
        self._resources.save()
        return self._resources.complete(
            project.name, "Project", serialize_project(project)
        )

    async def delete(self, request: web.Request) -> Json:
        """Delete a project with its branches; ``purge=true`` deletes it permanently."""
        project = self._resources.find_project(request)
        if project is self._resources.state.default_project:
            raise bad_request(
                "the first project of the local Lakebase cannot be deleted: the "
                "environment variables are for its endpoint"
            )
        if any(branch.is_protected for branch in project.live_branches):
            raise bad_request("cannot delete project with protected branches")
        branches = project.live_branches
        is_purge = wants_purge(request)
        project.deleted_at = time.time()

        async def work() -> Json:
            for branch in branches:
                await self._resources.stop_servers(branch)
            if is_purge:
                await self._resources.purge_project(project)
            self._resources.save()
            return DELETED

        return self._resources.operations.start(project.name, "Project", work())

    async def undelete(self, request: web.Request) -> Json:
        """Restore a deleted project."""
        project_id = request.match_info["project_id"]
        project = self._resources.state.projects.get(project_id)
        if project is None:
            raise not_found("project")
        if not project.is_deleted:
            raise bad_request("project is not deleted")

        async def work() -> Json:
            project.deleted_at = None
            for branch in project.live_branches:
                await self._resources.computes.start(branch)
            self._resources.save()
            return serialize_project(project)

        return self._resources.operations.start(project.name, "Project", work())


def _apply_fields(project: Project, fields: Mapping[str, Any]) -> None:
    if fields.get("display_name") is not None:
        project.display_name = str(fields["display_name"])
    has_native_login = fields.get("enable_pg_native_login")
    if has_native_login is not None:
        project.has_native_login = parse_bool(
            "spec.enable_pg_native_login", has_native_login
        )
    retention = fields.get("history_retention_duration")
    if retention is not None:
        project.retention = parse_duration(
            "spec.history_retention_duration", retention, *RETENTION_BOUNDS
        )
    defaults = fields.get("default_endpoint_settings") or {}
    project.suspend_after = parse_suspend_timeout(defaults, project.suspend_after)
