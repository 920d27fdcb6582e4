"""Projects over the API: read, made, changed, deleted and had back."""

import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.state.model import Project

from . import serializers
from .operations import DELETED, Json
from .params import (
    bad_request,
    checked_id,
    exists,
    invalid,
    is_true,
    masked,
    not_found,
    page_of,
    read_object,
    seconds,
)
from .resources import DAY, Tree, purges, shows_deleted, suspension

RETENTIONS = (2 * DAY, 35 * DAY)


class Projects:
    """The projects of the workspace. A request is checked before anything is done."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def list_all(self, request: web.Request) -> Json:
        """Answer with the projects."""
        estate = self._tree.estate
        live = estate.live_projects
        found = estate.projects.values() if shows_deleted(request) else live
        return page_of(request, "projects", [serializers.project(one) for one in found])

    async def create(self, request: web.Request) -> Json:
        """Make a project with its branch and endpoint."""
        project_id = checked_id("project_id", request.query.get("project_id", ""))
        spec = (await read_object(request)).get("spec") or {}
        if project_id in self._tree.estate.projects:
            raise exists("project with such id already exists in the workspace")
        known = self._tree.estate.home.pg_version
        if spec.get("pg_version", known) != known:
            raise invalid(
                f"Field 'spec.pg_version' must be {known}, the version of the "
                f"PostgreSQL that the local Lakebase runs, got '{spec['pg_version']}'."
            )
        project = Project(
            id=project_id,
            display_name=project_id,
            owner=request["identity"],
            pg_version=known,
        )
        _change_project(project, spec)
        initial = spec.get("initial_branch_spec") or {}
        branch = project.add_default_branch(
            is_protected=bool(initial.get("is_protected"))
        )
        self._tree.estate.projects[project_id] = project

        async def work() -> Json:
            await self._tree.fleet.make(project, branch)
            branch.enter("READY")
            self._tree.save()
            return serializers.project(project)

        return self._tree.operations.start(project.name, "Project", work())

    async def update(self, request: web.Request, project: Project) -> Json:
        """Change what the mask names."""
        body = await read_object(request)
        _change_project(project, masked(request, body.get("spec") or {}))
        project.touch()
        self._tree.save()
        return self._tree.done(project.name, "Project", serializers.project(project))

    def delete(self, request: web.Request, project: Project) -> Json:
        """Delete a project with all that is in it; with *purge* for good."""
        if project is self._tree.estate.home:
            raise bad_request(
                "the first project of the local Lakebase cannot be deleted: the "
                "variables lead to it"
            )
        if any(branch.is_protected for branch in project.live_branches):
            raise bad_request("cannot delete project with protected branches")
        branches = project.live_branches
        is_final = purges(request)
        project.deleted_at = time.time()

        async def work() -> Json:
            for branch in branches:
                await self._tree.rest(branch)
            if is_final:
                await self.purge(project)
            self._tree.save()
            return DELETED

        return self._tree.operations.start(project.name, "Project", work())

    def undelete(self, project_id: str) -> Json:
        """Have a deleted project back."""
        project = self._tree.estate.projects.get(project_id)
        if project is None:
            raise not_found("project")
        if not project.is_deleted:
            raise bad_request("project is not deleted")

        async def work() -> Json:
            project.deleted_at = None
            for branch in project.live_branches:
                await self._tree.fleet.start(branch)
            self._tree.save()
            return serializers.project(project)

        return self._tree.operations.start(project.name, "Project", work())

    async def purge(self, project: Project) -> None:
        """Remove it for good; its servers rest."""
        for branch in project.branches.values():
            await self._tree.tear_down(branch)
        del self._tree.estate.projects[project.id]


def _change_project(project: Project, fields: Mapping[str, Any]) -> None:
    if fields.get("display_name") is not None:
        project.display_name = str(fields["display_name"])
    native = fields.get("enable_pg_native_login")
    if native is not None:
        project.has_native_login = is_true("spec.enable_pg_native_login", native)
    kept = fields.get("history_retention_duration")
    if kept is not None:
        name = "spec.history_retention_duration"
        project.retention = seconds(name, kept, *RETENTIONS)
    defaults = fields.get("default_endpoint_settings") or {}
    project.suspend_after = suspension(defaults, project.suspend_after)
