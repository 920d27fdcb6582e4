"""
Projects, branches and endpoints over the API: read, made, changed and removed.

A request is checked whole before anything is done; what takes long is an operation.
Parents are looked for first, so an unknown project is named before its branch.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from . import catalog, shapes
from .estate import (
    BRANCH,
    ENDPOINT,
    PURGED_AFTER,
    Branch,
    Endpoint,
    Estate,
    Place,
    Project,
    branch_name,
    endpoint_name,
)
from .fleet import Fleet
from .gateway import Gateway
from .operations import DELETED, Json, Operations
from .problems import (
    bad_request,
    checked_id,
    exists,
    invalid,
    is_true,
    managed_by_parent,
    masked,
    moment,
    not_found,
    number,
    page_of,
    read_object,
    required,
    seconds,
)

DAY = 86400.0
# Seconds for which the logins of a new branch are refused, as the service does while
# its roles spread.
OPENS_AFTER = 1.0
# Seconds: the service's bounds.
LONGEST_TTL = 30 * DAY
RETENTIONS = (2 * DAY, 35 * DAY)
SUSPENSIONS = (60.0, 7 * DAY)
MOST_CU = 112.0
MOST_COMPUTES = 4


class Resources:
    """
    The tree of the estate.

    *save* keeps it after each change.
    """

    def __init__(
        self,
        estate: Estate,
        fleet: Fleet,
        operations: Operations,
        gateway: Gateway,
        *,
        save: Callable[[], None],
    ) -> None:
        self.estate, self.fleet, self.operations = estate, fleet, operations
        self._gateway, self.save = gateway, save

    # Finding.

    def project(self, project_id: str) -> Project:
        """Return a project; raises Problem."""
        project = self.estate.projects.get(project_id)
        if project is None or project.is_deleted:
            raise not_found("project")
        return project

    def branch(self, project: Project, branch_id: str) -> Branch:
        """Return a branch of *project*; raises Problem."""
        branch = project.branches.get(branch_id)
        if branch is None or branch.is_deleted:
            raise not_found("branch")
        return branch

    def endpoint(self, project: Project, branch: Branch, endpoint_id: str) -> Place:
        """Return an endpoint of *branch*; raises Problem."""
        endpoint = branch.endpoints.get(endpoint_id)
        if endpoint is None:
            raise not_found("endpoint")
        return Place(project, branch, endpoint)

    def place(self, name: str) -> Place:
        """Return the endpoint *name*; raises Problem."""
        match name.split("/"):
            case ["projects", project_id, "branches", branch_id, "endpoints", one]:
                project = self.project(project_id)
                return self.endpoint(project, self.branch(project, branch_id), one)
            case ["projects", project_id, *_]:
                self.project(project_id)
        raise not_found("endpoint")

    # Projects.

    def list_projects(self, request: web.Request) -> Json:
        """Answer with the projects."""
        estate = self.estate
        live = estate.live_projects
        found = estate.projects.values() if _shows_deleted(request) else live
        return page_of(request, "projects", [shapes.project(one) for one in found])

    async def create_project(self, request: web.Request) -> Json:
        """Make a project with its branch and endpoint."""
        project_id = checked_id("project_id", request.query.get("project_id", ""))
        spec = (await read_object(request)).get("spec") or {}
        if project_id in self.estate.projects:
            raise exists("project with such id already exists in the workspace")
        known = self.estate.home.pg_version
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
        self.estate.projects[project_id] = project

        async def work() -> Json:
            await self.fleet.make(project, branch)
            branch.enter("READY")
            self.save()
            return shapes.project(project)

        return self.operations.start(project.name, "Project", work())

    async def update_project(self, request: web.Request, project: Project) -> Json:
        """Change what the mask names."""
        body = await read_object(request)
        _change_project(project, masked(request, body.get("spec") or {}))
        project.touch()
        self.save()
        return self._done(project.name, "Project", shapes.project(project))

    def delete_project(self, request: web.Request, project: Project) -> Json:
        """Delete a project with all that is in it; with *purge* for good."""
        if project is self.estate.home:
            raise bad_request(
                "the first project of the local Lakebase cannot be deleted: the "
                "variables lead to it"
            )
        if any(branch.is_protected for branch in project.live_branches):
            raise bad_request("cannot delete project with protected branches")
        branches = project.live_branches
        purges = _purges(request)
        project.deleted_at = time.time()

        async def work() -> Json:
            for branch in branches:
                await self._rest(branch)
            if purges:
                await self._purge_project(project)
            self.save()
            return DELETED

        return self.operations.start(project.name, "Project", work())

    def undelete_project(self, project_id: str) -> Json:
        """Have a deleted project back."""
        project = self.estate.projects.get(project_id)
        if project is None:
            raise not_found("project")
        if not project.is_deleted:
            raise bad_request("project is not deleted")

        async def work() -> Json:
            project.deleted_at = None
            for branch in project.live_branches:
                await self.fleet.start(branch)
            self.save()
            return shapes.project(project)

        return self.operations.start(project.name, "Project", work())

    async def _purge_project(self, project: Project) -> None:
        for branch in project.branches.values():
            await self._tear_down(branch)
        del self.estate.projects[project.id]

    # Branches.

    async def show_branch(self, project: Project, branch: Branch) -> Json:
        """Answer with a branch."""
        compute = self.fleet.find(branch.folder)
        size = await catalog.size(compute.door) if compute else 0
        return shapes.branch(project, branch, size)

    async def list_branches(self, request: web.Request, project: Project) -> Json:
        """Answer with the branches of *project*."""
        live, everyone = project.live_branches, project.branches.values()
        found = everyone if _shows_deleted(request) else live
        shown = [await self.show_branch(project, branch) for branch in found]
        return page_of(request, "branches", shown)

    async def create_branch(self, request: web.Request, project: Project) -> Json:
        """Copy a branch, with its databases, roles and rows."""
        branch_id = checked_id("branch_id", request.query.get("branch_id", ""))
        spec = (await read_object(request)).get("spec") or {}
        if branch_id in project.branches:
            is_deleted = project.branches[branch_id].is_deleted
            if is_deleted or request.query.get("replace_existing") != "true":
                raise exists("branch with such id already exists")
            return await self._change_branch(project, project.branches[branch_id], spec)
        branch = Branch(id=branch_id)
        _change_expiry(branch, spec, is_needed=True)
        branch.is_protected = bool(spec.get("is_protected"))
        _guard_expiry(branch)
        for field in ("source_branch_lsn", "source_branch_time", "source_snapshot"):
            if spec.get(field):
                raise invalid(f"Field 'spec.{field}' is not part of the local Lakebase")
        source = self._source(project, spec)
        branch.source = branch_name(project, source)
        branch.endpoints[ENDPOINT] = Endpoint(
            id=ENDPOINT, suspend_after=project.suspend_after
        )
        branch.roles, branch.databases = dict(source.roles), dict(source.databases)
        branch.passwords = dict(source.passwords)
        project.branches[branch_id] = branch
        name = branch_name(project, branch)

        async def work() -> Json:
            try:
                branch.source_lsn = await self.fleet.copy(source, branch)
                if source.is_protected:
                    await self._renew_passwords(branch)
            except BaseException:
                del project.branches[branch_id]
                raise
            branch.enter("READY")
            branch.opens_at = time.time() + OPENS_AFTER
            self.save()
            return await self.show_branch(project, branch)

        return self.operations.start(name, "Branch", work())

    async def update_branch(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Change what the mask names."""
        body = await read_object(request)
        fields = masked(request, body.get("spec") or {})
        return await self._change_branch(project, branch, fields)

    def delete_branch(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Delete a branch; with *purge* for good."""
        name = branch_name(project, branch)
        if branch.is_default:
            raise managed_by_parent(
                f"Cannot delete root branch '{name}'. Root branches cannot be deleted "
                "independently."
            )
        if branch.is_protected:
            raise bad_request("cannot delete protected branch")
        if any(other.source == name for other in project.live_branches):
            raise bad_request("cannot delete branch with children")
        purges = _purges(request)
        branch.deleted_at = time.time()

        async def work() -> Json:
            await self._rest(branch)
            if purges:
                await self._purge_branch(project, branch)
            self.save()
            return DELETED

        return self.operations.start(name, "Branch", work())

    def undelete_branch(self, project: Project, branch_id: str) -> Json:
        """Have a deleted branch back."""
        branch = project.branches.get(branch_id)
        if branch is None:
            raise not_found("branch")
        if not branch.is_deleted:
            raise bad_request("branch is not deleted")

        async def work() -> Json:
            await self.fleet.start(branch)
            branch.deleted_at = branch.expires_at = None
            self.save()
            return await self.show_branch(project, branch)

        return self.operations.start(branch_name(project, branch), "Branch", work())

    async def _purge_branch(self, project: Project, branch: Branch) -> None:
        await self._tear_down(branch)
        del project.branches[branch.id]

    async def remove_expired(self) -> None:
        """Remove what was deleted long ago, and branches whose time is over."""
        now = time.time()
        for project in list(self.estate.projects.values()):
            if _is_over(project.deleted_at, now - PURGED_AFTER):
                await self._purge_project(project)
                self.save()
                continue
            sources = {branch.source for branch in project.live_branches}
            for branch in list(project.branches.values()):
                is_parent = branch_name(project, branch) in sources
                has_expired = _is_over(branch.expires_at, now) and not is_parent
                if has_expired or _is_over(branch.deleted_at, now - PURGED_AFTER):
                    branch.deleted_at = branch.deleted_at or now
                    await self._rest(branch)
                    await self._purge_branch(project, branch)
                    self.save()

    async def _change_branch(
        self, project: Project, branch: Branch, fields: Mapping[str, Any]
    ) -> Json:
        before = branch.expires_at, branch.is_protected
        try:
            _change_expiry(branch, fields, is_needed=False)
            if fields.get("is_protected") is not None:
                protects = fields["is_protected"]
                branch.is_protected = is_true("spec.is_protected", protects)
            _guard_expiry(branch)
        except BaseException:
            branch.expires_at, branch.is_protected = before
            raise
        branch.touch()
        self.save()
        shown = await self.show_branch(project, branch)
        return self._done(branch_name(project, branch), "Branch", shown)

    def _source(self, project: Project, spec: Mapping[str, Any]) -> Branch:
        name = spec.get("source_branch") or ""
        if not name:
            return project.default_branch
        prefix, _, branch_id = str(name).rpartition("/branches/")
        if prefix != project.name:
            raise invalid(f"Field 'spec.source_branch' is not of {project.name}.")
        source = self.branch(project, branch_id)
        if source.state != "READY":
            raise bad_request(f"source branch is not ready: {source.state}")
        return source

    async def _renew_passwords(self, branch: Branch) -> None:
        # The service does so for children of a protected branch.
        door = self.fleet.of(branch).door
        for role in await catalog.roles(door):
            if role.has_password:
                password = await catalog.new_password(door, role.name)
                branch.passwords[role.name] = password

    async def _rest(self, branch: Branch) -> None:
        await self._gateway.end_sessions(branch.folder)
        for endpoint in branch.endpoints.values():
            await self.fleet.rest(endpoint.folder)
        await self.fleet.rest(branch.folder)

    async def _tear_down(self, branch: Branch) -> None:
        for endpoint in branch.endpoints.values():
            await self.fleet.remove(endpoint.folder)
        await self.fleet.remove(branch.folder)

    # Endpoints.

    def list_endpoints(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Answer with the endpoints of *branch*."""
        places = [Place(project, branch, e) for e in branch.endpoints.values()]
        return page_of(request, "endpoints", [shapes.endpoint(p) for p in places])

    async def create_endpoint(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Give *branch* a read-only endpoint: it has its read-write one already."""
        endpoint_id = checked_id("endpoint_id", request.query.get("endpoint_id", ""))
        spec = (await read_object(request)).get("spec") or {}
        kind = spec.get("endpoint_type")
        if not kind:
            raise required("endpoint.spec.endpoint_type")
        replaces = request.query.get("replace_existing") == "true"
        known = branch.endpoints.get(endpoint_id)
        if known is not None and replaces:
            return await self._change_endpoint(Place(project, branch, known), spec)
        if known is not None:
            raise exists("endpoint with such id already exists")
        if kind == "ENDPOINT_TYPE_READ_WRITE":
            raise exists("read_write endpoint already exists")
        if kind != "ENDPOINT_TYPE_READ_ONLY":
            raise invalid(f"Field 'endpoint.spec.endpoint_type' is '{kind}'.")
        endpoint = Endpoint(
            id=endpoint_id, is_read_write=False, suspend_after=project.suspend_after
        )
        _change_endpoint(endpoint, spec)
        place = Place(project, branch, endpoint)
        branch.endpoints[endpoint_id] = endpoint

        async def work() -> Json:
            try:
                await self.fleet.add_standby(branch, endpoint)
            except BaseException:
                del branch.endpoints[endpoint_id]
                raise
            self.save()
            return shapes.endpoint(place)

        return self.operations.start(endpoint_name(place), "Endpoint", work())

    async def update_endpoint(self, request: web.Request, place: Place) -> Json:
        """Change what the mask names."""
        body = await read_object(request)
        return await self._change_endpoint(
            place, masked(request, body.get("spec") or {})
        )

    def delete_endpoint(self, place: Place) -> Json:
        """Remove a read-only endpoint."""
        name = endpoint_name(place)
        if place.endpoint.is_read_write:
            raise managed_by_parent(
                f"Cannot delete read-write endpoint '{name}'. Read-write endpoints "
                "cannot be deleted."
            )
        del place.branch.endpoints[place.endpoint.id]

        async def work() -> Json:
            await self.fleet.remove(place.endpoint.folder)
            self.save()
            return DELETED

        return self.operations.start(name, "Endpoint", work())

    async def _change_endpoint(self, place: Place, fields: Mapping[str, Any]) -> Json:
        it, had_standby = place.endpoint, place.endpoint.has_standby
        _change_endpoint(it, fields)
        it.touch()

        async def work() -> Json:
            if it.has_standby and not had_standby:
                await self.fleet.add_standby(place.branch, it)
            elif had_standby and not it.has_standby:
                await self.fleet.remove(it.folder)
            compute = self.fleet.find(place.folder)
            if compute is not None and fields.get("settings") is not None:
                await catalog.configure(compute.door, it.pg_settings)
            if it.is_disabled:
                await self._gateway.end_sessions(place.folder)
            self.save()
            return shapes.endpoint(place)

        return self.operations.start(endpoint_name(place), "Endpoint", work())

    def _done(self, name: str, kind: str, response: Json) -> Json:
        async def work() -> Json:
            return response

        return self.operations.start(name, kind, work())


def _shows_deleted(request: web.Request) -> bool:
    return request.query.get("show_deleted") == "true"


def _purges(request: web.Request) -> bool:
    return request.query.get("purge") == "true"


def _is_over(moment: float | None, now: float) -> bool:
    return moment is not None and moment <= now


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
    project.suspend_after = _suspension(defaults, project.suspend_after)


def _change_expiry(
    branch: Branch, fields: Mapping[str, Any], *, is_needed: bool
) -> None:
    names = ("ttl", "expire_time", "no_expiry")
    given = [name for name in names if fields.get(name) is not None]
    if len(given) > 1:
        raise invalid(f"Only one of {', '.join(names)} may be set.")
    if not given:
        if is_needed:
            raise invalid(
                "One of 'spec.ttl', 'spec.expire_time' or 'spec.no_expiry' is required."
            )
        return
    if given != ["no_expiry"]:
        branch.expires_at = _expiry(given[0], fields[given[0]])
    elif is_true("spec.no_expiry", fields["no_expiry"]):
        branch.expires_at = None
    else:
        raise invalid("Field 'spec.no_expiry' may only be true.")


def _expiry(name: str, value: object) -> float:
    now = time.time()
    if name == "ttl":
        expires_at = now + seconds("spec.ttl", value, 1, float("inf"))
    else:
        expires_at = moment("spec.expire_time", value)
    if expires_at <= now:
        raise invalid("expiration time must be in the future")
    if expires_at > now + LONGEST_TTL:
        raise invalid("expiration time exceeds the maximum expiration time")
    return expires_at


def _guard_expiry(branch: Branch) -> None:
    if branch.expires_at is None:
        return
    if branch.is_default or branch.id == BRANCH:
        raise bad_request("default branch cannot have an expiration time")
    if branch.is_protected:
        raise bad_request("protected branch cannot have an expiration time")


def _change_endpoint(endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
    if fields.get("disabled") is not None:
        endpoint.is_disabled = is_true("spec.disabled", fields["disabled"])
    endpoint.suspend_after = _suspension(fields, endpoint.suspend_after)
    low, high = endpoint.min_cu, endpoint.max_cu
    if fields.get("autoscaling_limit_min_cu") is not None:
        given = fields["autoscaling_limit_min_cu"]
        low = number("spec.autoscaling_limit_min_cu", given, 0.5, MOST_CU)
    if fields.get("autoscaling_limit_max_cu") is not None:
        given = fields["autoscaling_limit_max_cu"]
        high = number("spec.autoscaling_limit_max_cu", given, 0.5, MOST_CU)
    if low > high:
        raise invalid("autoscaling_limit_min_cu must not exceed the maximum")
    endpoint.min_cu, endpoint.max_cu = low, high
    group = fields.get("group") or {}
    if group:
        size = number("spec.group.min", group.get("min"), 1, MOST_COMPUTES)
        if size != group.get("max"):
            raise invalid("Field 'spec.group.min' must equal 'spec.group.max'.")
        readable = bool(group.get("enable_readable_secondaries"))
        endpoint.size = int(size)
        endpoint.has_secondaries = readable and size > 1 and endpoint.is_read_write
    if fields.get("settings") is not None:
        settings = fields["settings"].get("pg_settings") or {}
        endpoint.pg_settings = {str(k): str(v) for k, v in settings.items()}


def _suspension(fields: Mapping[str, Any], known: float) -> float:
    given = fields.get("suspend_timeout_duration")
    if fields.get("no_suspension"):
        if given is not None:
            raise invalid(
                "Only one of no_suspension and suspend_timeout_duration may be set."
            )
        return 0.0
    if given is None:
        return known
    return seconds("spec.suspend_timeout_duration", given, *SUSPENSIONS)
