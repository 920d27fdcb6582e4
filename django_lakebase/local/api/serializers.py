"""
Resources as the API shows them: plain dicts, in the service's field names.

An answer carries *status* only, never *spec*: so does the service's.
"""

from datetime import UTC, datetime
from typing import Any

from django_lakebase.local.postgres.provision import Database, Role
from django_lakebase.local.state.model import (
    PURGED_AFTER,
    Branch,
    Endpoint,
    Place,
    Project,
    branch_name,
    endpoint_name,
)

# Bytes: the service's limit of a branch.
LOGICAL_SIZE_LIMIT = 8796093022208


def moment(seconds: float) -> str:
    """Return *seconds* since 1970 as a timestamp of the API."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


def span(seconds: float) -> str:
    """Return *seconds* as a duration of the API."""
    return f"{seconds:g}s" if seconds < 10**6 else f"{seconds:.0f}s"


def project(it: Project) -> dict[str, Any]:
    """Show a project."""
    return {
        "name": it.name,
        "project_id": it.id,
        "uid": it.uid,
        **_moments(it),
        "status": {
            "project_id": it.id,
            "display_name": it.display_name,
            "pg_version": it.pg_version,
            "default_branch": branch_name(it, it.default_branch),
            "owner": it.owner,
            "enable_pg_native_login": it.has_native_login,
            "history_retention_duration": span(it.retention),
            **_deletion(it),
            "branch_logical_size_limit_bytes": LOGICAL_SIZE_LIMIT,
            "synthetic_storage_size_bytes": 0,
            "default_endpoint_settings": {
                "autoscaling_limit_min_cu": 1,
                "autoscaling_limit_max_cu": 1,
                **_suspension(it.suspend_after),
            },
        },
    }


def branch(owner: Project, it: Branch, size: int = 0) -> dict[str, Any]:
    """Show a branch of *owner*; *size* is in bytes."""
    status: dict[str, Any] = {
        "branch_id": it.id,
        "current_state": "DELETED" if it.is_deleted else it.state,
        **_deletion(it),
        "state_change_time": moment(it.state_changed_at),
        "default": it.is_default,
        "is_protected": it.is_protected,
        "logical_size_bytes": size,
    }
    if it.source:
        status |= {
            "source_branch": it.source,
            "source_branch_lsn": it.source_lsn,
            "source_branch_time": moment(it.created_at),
        }
    if it.expires_at is not None:
        status["expire_time"] = moment(it.expires_at)
    return {
        "name": branch_name(owner, it),
        "uid": it.uid,
        "parent": owner.name,
        "branch_id": it.id,
        **_moments(it),
        "status": status,
    }


def endpoint(place: Place) -> dict[str, Any]:
    """Show an endpoint."""
    it = place.endpoint
    kind = "READ_WRITE" if it.is_read_write else "READ_ONLY"
    return {
        "name": endpoint_name(place),
        "uid": it.uid,
        "parent": branch_name(place.project, place.branch),
        "endpoint_id": it.id,
        **_moments(it),
        "status": {
            "endpoint_id": it.id,
            "endpoint_type": f"ENDPOINT_TYPE_{kind}",
            "current_state": endpoint_state(place),
            "disabled": it.is_disabled,
            "settings": {"pg_settings": it.pg_settings} if it.pg_settings else {},
            "autoscaling_limit_min_cu": it.min_cu,
            "autoscaling_limit_max_cu": it.max_cu,
            **_suspension(it.suspend_after),
            "last_active_time": moment(it.active_at),
            "hosts": _hosts(it),
            "group": {
                "min": it.size,
                "max": it.size,
                "enable_readable_secondaries": it.has_secondaries,
            },
        },
    }


def endpoint_state(place: Place) -> str:
    """Return the state of an endpoint."""
    if place.branch.state != "READY":
        return "INIT"
    it = place.endpoint
    return "IDLE" if it.is_suspended or it.is_disabled else "ACTIVE"


def role(parent: str, role_id: str, it: Role) -> dict[str, Any]:
    """Show a role of the branch *parent*."""
    return {
        "name": f"{parent}/roles/{role_id}",
        "parent": parent,
        "role_id": role_id,
        "status": {
            "role_id": role_id,
            "postgres_role": it.name,
            "identity_type": it.identity_type or "IDENTITY_TYPE_UNSPECIFIED",
            "auth_method": it.auth_method,
            "membership_roles": ["DATABRICKS_SUPERUSER"] if it.is_superuser else [],
            "attributes": {
                "bypassrls": it.bypassrls,
                "createdb": it.createdb,
                "createrole": it.createrole,
            },
        },
    }


def database(parent: str, database_id: str, owner_id: str, it: Database) -> Any:
    """Show a database of the branch *parent*, which the role *owner_id* owns."""
    return {
        "name": f"{parent}/databases/{database_id}",
        "parent": parent,
        "database_id": database_id,
        "status": {
            "database_id": database_id,
            "postgres_database": it.name,
            "role": f"{parent}/roles/{owner_id}",
        },
    }


def _deletion(it: Project | Branch) -> dict[str, str]:
    if it.deleted_at is None:
        return {}
    purged_at = it.deleted_at + PURGED_AFTER
    return {"delete_time": moment(it.deleted_at), "purge_time": moment(purged_at)}


def _hosts(it: Endpoint) -> dict[str, str]:
    hosts = {"host": it.host()}
    if it.is_read_write:
        hosts["read_write_pooled_host"] = it.host("-pooler")
        if it.has_secondaries:
            hosts["read_only_host"] = it.host("-ro")
            hosts["read_only_pooled_host"] = it.host("-ro-pooler")
    else:
        hosts["read_only_host"] = it.host()
        hosts["read_only_pooled_host"] = it.host("-pooler")
    return hosts


def _suspension(seconds: float) -> dict[str, Any]:
    return {"suspend_timeout_duration": span(seconds)} if seconds else {}


def _moments(it: Project | Branch | Endpoint) -> dict[str, str]:
    return {"create_time": moment(it.created_at), "update_time": moment(it.updated_at)}
