"""The list of client secrets, as the unmodified SDK requests it."""

from datetime import UTC, datetime, timedelta

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, PermissionDenied


def fetch_secrets(client, principal_id):
    """Return the secrets of the service principal with the SCIM id *principal_id*."""
    return list(client.service_principal_secrets_proxy.list(principal_id))


@pytest.fixture
def principal_id(principal_client):
    """Return the SCIM id of the service principal."""
    return principal_client.current_user.me().id


def get_days_left(secret):
    """Return the days until *secret* expires."""
    return (datetime.fromisoformat(secret.expire_time) - datetime.now(UTC)) / timedelta(
        days=1
    )


def test_client_secret_is_listed_for_the_service_principal_and_the_owner(
    principal_client, owner_client, principal_id
):
    """It expires two years after its creation, as by default on the service."""
    [secret] = fetch_secrets(principal_client, principal_id)

    created_at = datetime.fromisoformat(secret.create_time)
    assert principal_id.isdecimal()
    assert secret.status == "ACTIVE"
    assert datetime.fromisoformat(secret.expire_time) - created_at == timedelta(730)
    assert [secret] == fetch_secrets(owner_client, principal_id)


def test_secret_expires_sets_the_days_left(principal_client, principal_id, local):
    with local.fault("secret-expires", days=3):
        [secret] = fetch_secrets(principal_client, principal_id)
    with local.fault("secret-expires", days=-1):
        [expired] = fetch_secrets(principal_client, principal_id)

    assert 2.9 < get_days_left(secret) < 3
    assert get_days_left(expired) < 0


def test_developer_may_not_list_client_secrets(principal_id, local):
    token = local.facts["developer_token"]
    client = WorkspaceClient(host=local.url, token=token, auth_type="pat")

    with pytest.raises(PermissionDenied):
        fetch_secrets(client, principal_id)


def test_no_secret_access_also_rejects_the_service_principal(
    principal_client, principal_id, local
):
    with local.fault("no-secret-access"), pytest.raises(PermissionDenied):
        fetch_secrets(principal_client, principal_id)

    assert fetch_secrets(principal_client, principal_id)


def test_client_secrets_of_a_person_are_not_found(owner_client):
    with pytest.raises(NotFound):
        fetch_secrets(owner_client, owner_client.current_user.me().id)
