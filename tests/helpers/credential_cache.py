"""Credentials that tests put into the engine's caches, and take out of them."""

import os
from datetime import timedelta
from typing import Any

from django_lakebase.auth import registry
from django_lakebase.auth.credentials import Credential, CredentialCache, utc_now
from django_lakebase.base import DatabaseWrapper
from django_lakebase.local.client import call
from tests.helpers.engine_threads import join_threads


def forget_credentials() -> None:
    """Forget all credentials and clients, as a new process would."""
    # Their requests belong to an earlier test.
    join_threads("lakebase-workspace")
    registry.reset()


def cache_of(wrapper: Any) -> CredentialCache:
    """Return the cache from which *wrapper* gets its credentials."""
    return registry.access_to(wrapper.get_target()).credentials


def cached_credential(wrapper: Any) -> Credential:
    """Return the fresh credential in the cache of *wrapper*, which must exist."""
    credential = cache_of(wrapper).get_cached()
    assert credential is not None
    return credential


def cache_token(
    wrapper: DatabaseWrapper, token: str, *, left: float = 3600.0
) -> Credential:
    """Put *token* into the cache of *wrapper*; it expires in *left* seconds."""
    now = utc_now()
    credential = Credential(
        token=token,
        issued_at=now - timedelta(seconds=3600 - left),
        expires_at=now + timedelta(seconds=left),
    )
    cache_of(wrapper).adopt(credential)
    return credential


def owner_client() -> Any:
    """Return an SDK client of the owner of the local project."""
    from databricks.sdk import WorkspaceClient

    url = os.environ["LAKEBASE_LOCAL_URL"]
    token = call(url, "GET", "facts")["owner_token"]
    return WorkspaceClient(host=url, token=token, auth_type="pat")
