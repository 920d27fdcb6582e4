"""Handlers for endpoints: create, list, update and delete."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.postgres import sql
from django_lakebase.local.state.model import (
    Endpoint,
    EndpointRef,
)

from .errors import already_exists, invalid, managed_by_parent, required
from .operations import DELETED, Json
from .params import (
    paginate,
    parse_bool,
    parse_number,
    parse_suspend_timeout,
    read_masked_spec,
    read_spec,
    validate_id,
)
from .resources import Resources
from .serializers import serialize_endpoint

MAX_CU = 112.0
MAX_COMPUTES = 4


class EndpointHandlers:
    """Handles requests for endpoints; validates each before changing anything."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def get(self, request: web.Request) -> Json:
        """Return an endpoint."""
        return serialize_endpoint(self._resources.find_endpoint(request))

    async def list_all(self, request: web.Request) -> Json:
        """Return a page of the endpoints of a branch."""
        project = self._resources.find_project(request)
        branch = self._resources.find_branch(request)
        refs = [EndpointRef(project, branch, e) for e in branch.endpoints.values()]
        return paginate(request, "endpoints", [serialize_endpoint(ref) for ref in refs])

    async def create(self, request: web.Request) -> Json:
        """Create a read-only endpoint; every branch already has a read-write one."""
        project = self._resources.find_project(request)
        branch = self._resources.find_branch(request)
        endpoint_id = validate_id("endpoint_id", request.query.get("endpoint_id", ""))
        spec = await read_spec(request)
        kind = spec.get("endpoint_type")
        if not kind:
            raise required("endpoint.spec.endpoint_type")
        replaces = request.query.get("replace_existing") == "true"
        existing = branch.endpoints.get(endpoint_id)
        if existing is not None and replaces:
            return await self._update(EndpointRef(project, branch, existing), spec)
        if existing is not None:
            raise already_exists("endpoint with such id already exists")
        if kind == "ENDPOINT_TYPE_READ_WRITE":
            raise already_exists("read_write endpoint already exists")
        if kind != "ENDPOINT_TYPE_READ_ONLY":
            raise invalid(f"Field 'endpoint.spec.endpoint_type' is '{kind}'.")
        endpoint = Endpoint(
            id=endpoint_id, is_read_write=False, suspend_after=project.suspend_after
        )
        _apply_fields(endpoint, spec)
        ref = EndpointRef(project, branch, endpoint)
        branch.endpoints[endpoint_id] = endpoint

        async def work() -> Json:
            try:
                await self._resources.computes.add_standby(branch, endpoint)
            except BaseException:
                del branch.endpoints[endpoint_id]
                raise
            self._resources.save()
            return serialize_endpoint(ref)

        return self._resources.operations.start(ref.name, "Endpoint", work())

    async def update(self, request: web.Request) -> Json:
        """Update the fields in the update mask."""
        ref = self._resources.find_endpoint(request)
        return await self._update(ref, await read_masked_spec(request))

    async def delete(self, request: web.Request) -> Json:
        """Delete a read-only endpoint."""
        ref = self._resources.find_endpoint(request)
        if ref.endpoint.is_read_write:
            raise managed_by_parent(
                f"Cannot delete read-write endpoint '{ref.name}'. Read-write endpoints "
                "cannot be deleted."
            )
        del ref.branch.endpoints[ref.endpoint.id]

        async def work() -> Json:
            await self._resources.computes.delete(ref.endpoint.folder)
            self._resources.save()
            return DELETED

        return self._resources.operations.start(ref.name, "Endpoint", work())

    async def _update(self, ref: EndpointRef, fields: Mapping[str, Any]) -> Json:
        endpoint, had_standby = ref.endpoint, ref.endpoint.has_standby
        _apply_fields(endpoint, fields)
        endpoint.touch()

        async def work() -> Json:
            if endpoint.has_standby and not had_standby:
                await self._resources.computes.add_standby(ref.branch, endpoint)
            elif had_standby and not endpoint.has_standby:
                await self._resources.computes.delete(endpoint.folder)
            compute = self._resources.computes.find(ref.folder)
            if compute is not None and fields.get("settings") is not None:
                await sql.set_settings(compute.admin, endpoint.pg_settings)
            if endpoint.is_disabled:
                await self._resources.gateway.end_sessions(ref.folder)
            self._resources.save()
            return serialize_endpoint(ref)

        return self._resources.operations.start(ref.name, "Endpoint", work())


def _apply_fields(endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
    if fields.get("disabled") is not None:
        endpoint.is_disabled = parse_bool("spec.disabled", fields["disabled"])
    endpoint.suspend_after = parse_suspend_timeout(fields, endpoint.suspend_after)
    min_cu, max_cu = endpoint.min_cu, endpoint.max_cu
    if fields.get("autoscaling_limit_min_cu") is not None:
        value = fields["autoscaling_limit_min_cu"]
        min_cu = parse_number("spec.autoscaling_limit_min_cu", value, 0.5, MAX_CU)
    if fields.get("autoscaling_limit_max_cu") is not None:
        value = fields["autoscaling_limit_max_cu"]
        max_cu = parse_number("spec.autoscaling_limit_max_cu", value, 0.5, MAX_CU)
    if min_cu > max_cu:
        raise invalid("autoscaling_limit_min_cu must not exceed the maximum")
    endpoint.min_cu, endpoint.max_cu = min_cu, max_cu
    group = fields.get("group") or {}
    if group:
        size = parse_number("spec.group.min", group.get("min"), 1, MAX_COMPUTES)
        if size != group.get("max"):
            raise invalid("Field 'spec.group.min' must equal 'spec.group.max'.")
        readable = bool(group.get("enable_readable_secondaries"))
        endpoint.size = int(size)
        endpoint.has_secondaries = readable and size > 1 and endpoint.is_read_write
    if fields.get("settings") is not None:
        settings = fields["settings"].get("pg_settings") or {}
        endpoint.pg_settings = {str(k): str(v) for k, v in settings.items()}
