"""
Serialization of resources: plain dicts with the service's field names.

As on the service, a response contains *status* and never *spec*.
"""

from datetime import UTC, datetime
from typing import Any

from django_lakebase.local.postgres.sql import Database, Role
from django_lakebase.local.state.model import (
    PURGE_AFTER,
    Branch,
    Endpoint,
    EndpointRef,
    Project,
)

# The service's size limit for a branch, in bytes.
LOGICAL_SIZE_LIMIT = 8796093022208


def format_timestamp(seconds: float) -> str:
    """Return the Unix timestamp *seconds* in the format of the API."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


def format_duration(seconds: float) -> str:
    """Return a duration of *seconds* in the format of the API."""
    return f"{seconds:g}s" if seconds < 10**6 else f"{seconds:.0f}s"


def serialize_project(project: Project) -> dict[str, Any]:
    """Serialize a project."""
    return {
        "name": project.name,
        "project_id": project.id,
        "uid": project.uid,
        **_timestamps(project),
        "status": {
            "project_id": project.id,
            "display_name": project.display_name,
            "pg_version": project.pg_version,
            "default_branch": project.default_branch.name,
            "owner": project.owner,
            "enable_pg_native_login": project.has_native_login,
            "history_retention_duration": format_duration(project.retention),
            **_deletion_times(project),
            "branch_logical_size_limit_bytes": LOGICAL_SIZE_LIMIT,
            "synthetic_storage_size_bytes": 0,
            "default_endpoint_settings": {
                "autoscaling_limit_min_cu": 1,
                "autoscaling_limit_max_cu": 1,
                **_suspend_timeout(project.suspend_after),
            },
        },
    }


def serialize_branch(branch: Branch, size: int = 0) -> dict[str, Any]:
    """Serialize a branch; *size* is in bytes."""
    status: dict[str, Any] = {
        "branch_id": branch.id,
        "current_state": "DELETED" if branch.is_deleted else branch.current_state,
        **_deletion_times(branch),
        "state_change_time": format_timestamp(branch.state_changed_at),
        "default": branch.is_default,
        "is_protected": branch.is_protected,
        "logical_size_bytes": size,
    }
    if branch.source:
        status |= {
            "source_branch": branch.source,
            "source_branch_lsn": branch.source_lsn,
            "source_branch_time": format_timestamp(branch.created_at),
        }
    if branch.expires_at is not None:
        status["expire_time"] = format_timestamp(branch.expires_at)
    return {
        "name": branch.name,
        "uid": branch.uid,
        "parent": branch.parent,
        "branch_id": branch.id,
        **_timestamps(branch),
        "status": status,
    }


def serialize_endpoint(ref: EndpointRef) -> dict[str, Any]:
    """Serialize an endpoint."""
    endpoint = ref.endpoint
    kind = "READ_WRITE" if endpoint.is_read_write else "READ_ONLY"
    return {
        "name": ref.name,
        "uid": endpoint.uid,
        "parent": ref.branch.name,
        "endpoint_id": endpoint.id,
        **_timestamps(endpoint),
        "status": {
            "endpoint_id": endpoint.id,
            "endpoint_type": f"ENDPOINT_TYPE_{kind}",
            "current_state": get_endpoint_state(ref),
            "disabled": endpoint.is_disabled,
            "settings": {"pg_settings": endpoint.pg_settings}
            if endpoint.pg_settings
            else {},
            "autoscaling_limit_min_cu": endpoint.min_cu,
            "autoscaling_limit_max_cu": endpoint.max_cu,
            **_suspend_timeout(endpoint.suspend_after),
            "last_active_time": format_timestamp(endpoint.active_at),
            "hosts": _hosts(endpoint),
            "group": {
                "min": endpoint.size,
                "max": endpoint.size,
                "enable_readable_secondaries": endpoint.has_secondaries,
            },
        },
    }


def get_endpoint_state(ref: EndpointRef) -> str:
    """Return the state of an endpoint."""
    if ref.branch.current_state != "READY":
        return "INIT"
    endpoint = ref.endpoint
    return "IDLE" if endpoint.is_suspended or endpoint.is_disabled else "ACTIVE"


def serialize_role(parent: str, role_id: str, role: Role) -> dict[str, Any]:
    """Serialize a role of the branch *parent*."""
    return {
        "name": f"{parent}/roles/{role_id}",
        "parent": parent,
        "role_id": role_id,
        "status": {
            "role_id": role_id,
            "postgres_role": role.name,
            "identity_type": role.identity_type or "IDENTITY_TYPE_UNSPECIFIED",
            "auth_method": role.auth_method,
            "membership_roles": ["DATABRICKS_SUPERUSER"] if role.is_superuser else [],
            "attributes": {
                "bypassrls": role.bypassrls,
                "createdb": role.createdb,
                "createrole": role.createrole,
            },
        },
    }


def serialize_database(
    parent: str, database_id: str, owner_id: str, database: Database
) -> dict[str, Any]:
    """Serialize a database of the branch *parent* owned by the role *owner_id*."""
    return {
        "name": f"{parent}/databases/{database_id}",
        "parent": parent,
        "database_id": database_id,
        "status": {
            "database_id": database_id,
            "postgres_database": database.name,
            "role": f"{parent}/roles/{owner_id}",
        },
    }


def _deletion_times(resource: Project | Branch) -> dict[str, str]:
    if resource.deleted_at is None:
        return {}
    purged_at = resource.deleted_at + PURGE_AFTER
    return {
        "delete_time": format_timestamp(resource.deleted_at),
        "purge_time": format_timestamp(purged_at),
    }


def _hosts(endpoint: Endpoint) -> dict[str, str]:
    hosts = {"host": endpoint.host()}
    if endpoint.is_read_write:
        hosts["read_write_pooled_host"] = endpoint.host("-pooler")
        if endpoint.has_secondaries:
            hosts["read_only_host"] = endpoint.host("-ro")
            hosts["read_only_pooled_host"] = endpoint.host("-ro-pooler")
    else:
        hosts["read_only_host"] = endpoint.host()
        hosts["read_only_pooled_host"] = endpoint.host("-pooler")
    return hosts


def _suspend_timeout(seconds: float) -> dict[str, Any]:
    return {"suspend_timeout_duration": format_duration(seconds)} if seconds else {}


def _timestamps(resource: Project | Branch | Endpoint) -> dict[str, str]:
    return {
        "create_time": format_timestamp(resource.created_at),
        "update_time": format_timestamp(resource.updated_at),
    }
