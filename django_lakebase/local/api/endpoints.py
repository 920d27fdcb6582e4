"""Endpoints over the API: read, made, changed and removed."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.postgres import sql
from django_lakebase.local.state.model import (
    Branch,
    Endpoint,
    EndpointRef,
    Project,
    endpoint_name,
)

from .errors import already_exists, invalid, managed_by_parent, required
from .operations import DELETED, Json
from .params import (
    paginate,
    parse_bool,
    parse_number,
    parse_suspend_timeout,
    read_json,
    select_masked_fields,
    validate_id,
)
from .resources import Resources
from .serializers import serialize_endpoint

MAX_CU = 112.0
MAX_COMPUTES = 4


class EndpointHandlers:
    """The endpoints of branches. A request is checked before anything is done."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def list_all(self, request: web.Request, project: Project, branch: Branch) -> Json:
        """Answer with the endpoints of *branch*."""
        refs = [EndpointRef(project, branch, e) for e in branch.endpoints.values()]
        return paginate(request, "endpoints", [serialize_endpoint(p) for p in refs])

    async def create(
        self, request: web.Request, project: Project, branch: Branch
    ) -> Json:
        """Give *branch* a read-only endpoint: it has its read-write one already."""
        endpoint_id = validate_id("endpoint_id", request.query.get("endpoint_id", ""))
        spec = (await read_json(request)).get("spec") or {}
        kind = spec.get("endpoint_type")
        if not kind:
            raise required("endpoint.spec.endpoint_type")
        replaces = request.query.get("replace_existing") == "true"
        known = branch.endpoints.get(endpoint_id)
        if known is not None and replaces:
            return await self._update(EndpointRef(project, branch, known), spec)
        if known is not None:
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

        return self._resources.operations.start(endpoint_name(ref), "Endpoint", work())

    async def update(self, request: web.Request, ref: EndpointRef) -> Json:
        """Change what the mask names."""
        body = await read_json(request)
        return await self._update(
            ref, select_masked_fields(request, body.get("spec") or {})
        )

    def delete(self, ref: EndpointRef) -> Json:
        """Remove a read-only endpoint."""
        name = endpoint_name(ref)
        if ref.endpoint.is_read_write:
            raise managed_by_parent(
                f"Cannot delete read-write endpoint '{name}'. Read-write endpoints "
                "cannot be deleted."
            )
        del ref.branch.endpoints[ref.endpoint.id]

        async def work() -> Json:
            await self._resources.computes.delete(ref.endpoint.folder)
            self._resources.save()
            return DELETED

        return self._resources.operations.start(name, "Endpoint", work())

    async def _update(self, ref: EndpointRef, fields: Mapping[str, Any]) -> Json:
        it, had_standby = ref.endpoint, ref.endpoint.has_standby
        _apply_fields(it, fields)
        it.touch()

        async def work() -> Json:
            if it.has_standby and not had_standby:
                await self._resources.computes.add_standby(ref.branch, it)
            elif had_standby and not it.has_standby:
                await self._resources.computes.delete(it.folder)
            compute = self._resources.computes.find(ref.folder)
            if compute is not None and fields.get("settings") is not None:
                await sql.set_settings(compute.admin, it.pg_settings)
            if it.is_disabled:
                await self._resources.gateway.end_sessions(ref.folder)
            self._resources.save()
            return serialize_endpoint(ref)

        return self._resources.operations.start(endpoint_name(ref), "Endpoint", work())


def _apply_fields(endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
    if fields.get("disabled") is not None:
        endpoint.is_disabled = parse_bool("spec.disabled", fields["disabled"])
    endpoint.suspend_after = parse_suspend_timeout(fields, endpoint.suspend_after)
    low, high = endpoint.min_cu, endpoint.max_cu
    if fields.get("autoscaling_limit_min_cu") is not None:
        given = fields["autoscaling_limit_min_cu"]
        low = parse_number("spec.autoscaling_limit_min_cu", given, 0.5, MAX_CU)
    if fields.get("autoscaling_limit_max_cu") is not None:
        given = fields["autoscaling_limit_max_cu"]
        high = parse_number("spec.autoscaling_limit_max_cu", given, 0.5, MAX_CU)
    if low > high:
        raise invalid("autoscaling_limit_min_cu must not exceed the maximum")
    endpoint.min_cu, endpoint.max_cu = low, high
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
