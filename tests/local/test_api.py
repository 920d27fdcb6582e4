"""The API, called through the unmodified SDK and in plain HTTP."""

import json
import os
import subprocess
import sys
import threading
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import NotFound, PermissionDenied, Unauthenticated

from django_lakebase.local.client import ClientError, call
from django_lakebase.local.state.model import GROUP
from tests.local.rest_api import ApiError, RestApi


def test_client_secret_and_access_token_identify_their_owners(
    principal_client, owner_client, local
):
    principal = principal_client.current_user.me()
    assert principal.user_name == local.facts["service_principal"]
    assert owner_client.current_user.me().user_name == local.facts["owner"]


def test_current_user_has_the_groups_of_the_identity(principal_client, owner_client):
    for client in (principal_client, owner_client):
        assert [it.display for it in client.current_user.me().groups] == [GROUP]


def test_sdk_receives_a_credential_with_token_and_expiry(principal_client, local):
    endpoint = local.facts["endpoint"]
    postgres = principal_client.postgres
    credential = postgres.generate_database_credential(endpoint=endpoint)

    assert credential.token.count(".") == 2
    assert credential.expire_time.ToDatetime().year >= 2026


def test_sdk_gets_and_lists_project_branch_and_endpoint(principal_client, local):
    facts, postgres = local.facts, principal_client.postgres

    assert [p.name for p in postgres.list_projects()] == [facts["project"]]
    assert postgres.get_project(facts["project"]).status.owner == facts["owner"]
    [branch] = postgres.list_branches(facts["project"])
    assert (branch.name, branch.status.default) == (facts["branch"], True)
    assert postgres.get_branch(facts["branch"]).uid == branch.uid
    [endpoint] = postgres.list_endpoints(facts["branch"])
    assert endpoint.status.hosts.host == facts["host"]
    status = postgres.get_endpoint(facts["endpoint"]).status
    assert status.current_state.value == "ACTIVE"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("projects/x/branches/y/endpoints/z", "project"),
        ("{project}/branches/y/endpoints/z", "branch"),
        ("{project}/branches/production/endpoints/z", "endpoint"),
    ],
)
def test_not_found_error_names_the_first_unknown_part(
    principal_client, local, name, kind
):
    name = name.format(project=local.facts["project"])
    with pytest.raises(NotFound, match=f"{kind} id not found"):
        principal_client.postgres.get_endpoint(name)
    with pytest.raises(NotFound, match=f"{kind} id not found"):
        principal_client.postgres.generate_database_credential(endpoint=name)


def test_request_with_an_invalid_token_is_answered_401(local):
    for token in ("-", "eyJh.eyJz.x", "g\u00fcltig"):
        client = RestApi(local.url, token)
        assert client.send("GET", "/api/2.0/postgres/projects")[0] == 401


def in_seconds(seconds):
    """Return the time *seconds* seconds from now, in the format of the API."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("options", "lifetime"),
    [
        ({}, 3600),
        ({"ttl": "300s"}, 300),
        ({"expire_time": 1200}, 1200),
        ({"claims": [{"permission_set": "READ_ONLY"}]}, 3600),
    ],
    ids=["default", "ttl", "expire_time", "claims"],
)
def test_credential_has_the_requested_lifetime(api, local, options, lifetime):
    body = {"endpoint": local.facts["endpoint"], **options}
    if "expire_time" in options:
        body["expire_time"] = in_seconds(options["expire_time"])

    credential = api.request("POST", "credentials", body)

    assert set(credential) == {"token", "expire_time"}
    remaining = datetime.fromisoformat(credential["expire_time"]) - datetime.now(UTC)
    assert lifetime - 30 < remaining.total_seconds() <= lifetime


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        ({}, 400, "INVALID_PARAMETER_VALUE", "'endpoint' is required"),
        ({"ttl": "60s"}, 400, "INVALID_PARAMETER_VALUE", "between 300s and 3600s"),
        ({"ttl": "1h"}, 400, "INVALID_PARAMETER_VALUE", "duration in seconds"),
        ({"expire_time": "x"}, 400, "INVALID_PARAMETER_VALUE", "a timestamp"),
        (
            {"expire_time": in_seconds(-5)},
            400,
            "INVALID_PARAMETER_VALUE",
            "in the future",
        ),
        (b"[", 400, "MALFORMED_REQUEST", "expected a map"),
        (b"[]", 400, "MALFORMED_REQUEST", "expected a map"),
        ({"endpoint": "projects/x"}, 404, "NOT_FOUND", "project id not found"),
    ],
)
def test_invalid_request_for_a_credential_is_rejected(
    api, local, body, status, code, message
):
    if isinstance(body, dict) and body and "endpoint" not in body:
        body = {"endpoint": local.facts["endpoint"], **body}

    with pytest.raises(ApiError, match=message) as caught:
        api.request("POST", "credentials", body)

    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    "path", ["/api/2.0/postgres/nothing", "/api/2.0/clusters/list", "/x"]
)
def test_unknown_path_is_answered_404_endpoint_not_found(api, path):
    """The SDK raises NotFound for this error code."""
    status, _, text = api.send("GET", path)

    assert status == 404
    assert json.loads(text)["error_code"] == "ENDPOINT_NOT_FOUND"


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("PUT", "projects", "No API found"),
        ("PUT", "projects/x", "project id not found"),
        ("GET", "projects/x/y", "project id not found"),
        ("GET", "projects//branches/production", "project id not found"),
        ("GET", "{project}/y", "No API found"),
        ("POST", "{project}/branches/x/undelete/y", "branch id not found"),
        ("PUT", "{project}/branches/x/roles", "branch id not found"),
        ("PUT", "{project}/branches/production/roles", "No API found"),
    ],
)
def test_unknown_parent_takes_precedence_over_an_unknown_path(
    api, local, method, path, error
):
    path = path.format(project=local.facts["project"])

    status, _, text = api.send(method, f"/api/2.0/postgres/{path}")

    assert status == 404
    assert error in text


def test_path_may_end_in_slashes_and_contain_encoded_characters(api, local):
    name = local.facts["branch"]

    assert api.request("GET", f"{name}//")["name"] == name
    assert (
        api.request("GET", name.replace("production", "%70roduction"))["name"] == name
    )


def test_branch_named_operations_is_not_mistaken_for_an_operation(api, local):
    with pytest.raises(ApiError, match="branch id not found"):
        api.request("GET", f"{local.facts['project']}/branches/operations/roles")


def test_current_user_of_a_person_has_an_email_address(owner_client, local):
    me = owner_client.current_user.me()

    assert me.emails[0].value == me.user_name == local.facts["owner"]


@pytest.mark.parametrize("seed", ["1", "2"])
def test_scim_id_is_the_same_in_every_process(principal_client, local, seed):
    """An emulator with ``--data`` must return the same id after a restart."""
    code = (
        "import sys; from django_lakebase.local.state.model import get_scim_id; "
        "print(get_scim_id(sys.argv[1]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, local.facts["service_principal"]],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )

    assert principal_client.current_user.me().id == result.stdout.strip()


def test_wrong_client_secret_raises_value_error_in_the_sdk(local):
    with pytest.raises(ValueError, match="invalid_client"):
        WorkspaceClient(
            host=local.url, client_id="x", client_secret="y"
        ).current_user.me()


def test_faults_of_credentials_and_secrets_affect_the_sdk(principal_client, local):
    endpoint = local.facts["endpoint"]
    issue_credential = principal_client.postgres.generate_database_credential

    with (
        local.fault("no-workspace-access"),
        pytest.raises(PermissionDenied, match="workspace-access entitlement"),
    ):
        issue_credential(endpoint=endpoint)
    with local.fault("empty-credential"):
        assert issue_credential(endpoint=endpoint).token is None
    with local.fault("clock-skew", seconds=-7200):
        with_skew = issue_credential(endpoint=endpoint).expire_time.ToDatetime()
    without_skew = issue_credential(endpoint=endpoint).expire_time.ToDatetime()
    assert 7100 < (without_skew - with_skew).total_seconds() < 7300
    with local.fault("secret-revoked"), pytest.raises(Unauthenticated):
        issue_credential(endpoint=endpoint)


@pytest.mark.parametrize("fault", ["api-down", "api-5xx"])
def test_sdk_retries_until_its_timeout_while_the_api_fails(
    principal_client, local, fault
):
    principal_client.current_user.me()

    with local.fault(fault), pytest.raises(TimeoutError):
        principal_client.current_user.me()


def test_clearing_api_hang_ends_a_waiting_request(local):
    failed = threading.Event()

    def send_request():
        try:
            urllib.request.urlopen(f"{local.url}/oidc/.well-known/openid-configuration")
        except OSError:
            failed.set()

    local.set_fault("api-hang")
    thread = threading.Thread(target=send_request)
    thread.start()
    while not local.fetch_counters()["requests"]:
        pass
    assert not failed.is_set()
    local.clear_faults()
    thread.join(10)

    assert failed.is_set()


def test_counters_count_credentials_and_requests_by_path(principal_client, local):
    endpoint = local.facts["endpoint"]
    principal_client.postgres.generate_database_credential(endpoint=endpoint)

    counters = local.fetch_counters()

    assert counters["credentials_issued"] == 1
    assert counters["requests"]["/api/2.0/postgres/credentials"] == 1


def test_client_error_explains_invalid_faults_and_a_missing_emulator(local):
    with pytest.raises(ClientError, match="There is no fault"):
        local.set_fault("no-such")
    with pytest.raises(ClientError, match="no option"):
        local.set_fault("latency", sm=1)
    with pytest.raises(ClientError, match='"message" cannot be'):
        local.set_fault("reject-logins", message="loud")
    with pytest.raises(ClientError, match="Is it still running"):
        call("http://127.0.0.1:9", "GET", "faults")
