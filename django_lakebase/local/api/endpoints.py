"""Endpoints over the API: read, made, changed and removed."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from django_lakebase.local.postgres import provision
from django_lakebase.local.state.model import (
    Branch,
    Endpoint,
    Place,
    Project,
    endpoint_name,
)

from . import serializers
from .operations import DELETED, Json
from .params import (
    checked_id,
    exists,
    invalid,
    is_true,
    managed_by_parent,
    masked,
    number,
    page_of,
    read_object,
    required,
)
from .resources import Tree, suspension

MOST_CU = 112.0
MOST_COMPUTES = 4


class Endpoints:
    """The endpoints of branches. A request is checked before anything is done."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def list_all(self, request: web.Request, project: Project, branch: Branch) -> Json:
        """Answer with the endpoints of *branch*."""
        places = [Place(project, branch, e) for e in branch.endpoints.values()]
        return page_of(request, "endpoints", [serializers.endpoint(p) for p in places])

    async def create(
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
                await self._tree.fleet.add_standby(branch, endpoint)
            except BaseException:
                del branch.endpoints[endpoint_id]
                raise
            self._tree.save()
            return serializers.endpoint(place)

        return self._tree.operations.start(endpoint_name(place), "Endpoint", work())

    async def update(self, request: web.Request, place: Place) -> Json:
        """Change what the mask names."""
        body = await read_object(request)
        return await self._change_endpoint(
            place, masked(request, body.get("spec") or {})
        )

    def delete(self, place: Place) -> Json:
        """Remove a read-only endpoint."""
        name = endpoint_name(place)
        if place.endpoint.is_read_write:
            raise managed_by_parent(
                f"Cannot delete read-write endpoint '{name}'. Read-write endpoints "
                "cannot be deleted."
            )
        del place.branch.endpoints[place.endpoint.id]

        async def work() -> Json:
            await self._tree.fleet.remove(place.endpoint.folder)
            self._tree.save()
            return DELETED

        return self._tree.operations.start(name, "Endpoint", work())

    async def _change_endpoint(self, place: Place, fields: Mapping[str, Any]) -> Json:
        it, had_standby = place.endpoint, place.endpoint.has_standby
        _change_endpoint(it, fields)
        it.touch()

        async def work() -> Json:
            if it.has_standby and not had_standby:
                await self._tree.fleet.add_standby(place.branch, it)
            elif had_standby and not it.has_standby:
                await self._tree.fleet.remove(it.folder)
            compute = self._tree.fleet.find(place.folder)
            if compute is not None and fields.get("settings") is not None:
                await provision.configure(compute.door, it.pg_settings)
            if it.is_disabled:
                await self._tree.gateway.end_sessions(place.folder)
            self._tree.save()
            return serializers.endpoint(place)

        return self._tree.operations.start(endpoint_name(place), "Endpoint", work())


def _change_endpoint(endpoint: Endpoint, fields: Mapping[str, Any]) -> None:
    if fields.get("disabled") is not None:
        endpoint.is_disabled = is_true("spec.disabled", fields["disabled"])
    endpoint.suspend_after = suspension(fields, endpoint.suspend_after)
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
