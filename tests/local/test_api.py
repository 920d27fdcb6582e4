"""The API: through the unmodified SDK, and as plain HTTP."""

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
from tests.local.conftest import Api, Refused


def test_both_ways_to_log_in(principal, owner, local):
    """A secret for programs, a token for people."""
    assert principal.current_user.me().user_name == local.facts["service_principal"]
    assert owner.current_user.me().user_name == local.facts["owner"]


def test_an_identity_is_shown_with_its_groups(principal, owner):
    """SCIM's answer about the caller names the groups that it is a member of."""
    for client in (principal, owner):
        assert [it.display for it in client.current_user.me().groups] == [GROUP]


def test_a_credential_has_a_token_and_an_end(principal, local):
    """As the SDK shows it."""
    endpoint = local.facts["endpoint"]
    credential = principal.postgres.generate_database_credential(endpoint=endpoint)

    assert credential.token.count(".") == 2
    assert credential.expire_time.ToDatetime().year >= 2026


def test_the_project_can_be_walked(principal, local):
    """Project, branch and endpoint, by name and in lists."""
    facts, api = local.facts, principal.postgres

    assert [p.name for p in api.list_projects()] == [facts["project"]]
    assert api.get_project(facts["project"]).status.owner == facts["owner"]
    [branch] = api.list_branches(facts["project"])
    assert (branch.name, branch.status.default) == (facts["branch"], True)
    assert api.get_branch(facts["branch"]).uid == branch.uid
    [endpoint] = api.list_endpoints(facts["branch"])
    assert endpoint.status.hosts.host == facts["host"]
    assert api.get_endpoint(facts["endpoint"]).status.current_state.value == "ACTIVE"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("projects/x/branches/y/endpoints/z", "project"),
        ("{project}/branches/y/endpoints/z", "branch"),
        ("{project}/branches/production/endpoints/z", "endpoint"),
    ],
)
def test_what_is_not_there_is_not_found(principal, local, name, kind):
    """The first unknown part is named."""
    name = name.format(project=local.facts["project"])
    with pytest.raises(NotFound, match=f"{kind} id not found"):
        principal.postgres.get_endpoint(name)
    with pytest.raises(NotFound, match=f"{kind} id not found"):
        principal.postgres.generate_database_credential(endpoint=name)


def test_calls_need_a_token(local):
    """Without one, or with another's, there is no answer."""
    for token in ("-", "eyJh.eyJz.x", "g\u00fcltig"):
        client = Api(local.url, token)
        assert client.raw("GET", "/api/2.0/postgres/projects")[0] == 401


def soon(seconds):
    """Return the moment *seconds* from now, as the API writes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("asked", "life"),
    [
        ({}, 3600),
        ({"ttl": "300s"}, 300),
        ({"expire_time": 1200}, 1200),
        ({"claims": [{"permission_set": "READ_ONLY"}]}, 3600),
    ],
    ids=["default", "ttl", "expire_time", "claims"],
)
def test_a_life_may_be_asked_for(api, local, asked, life):
    """Shorter than the default; the guide's REST call does so."""
    body = {"endpoint": local.facts["endpoint"], **asked}
    if "expire_time" in asked:
        body["expire_time"] = soon(asked["expire_time"])

    answer = api.ask("POST", "credentials", body)

    assert set(answer) == {"token", "expire_time"}
    left = datetime.fromisoformat(answer["expire_time"]) - datetime.now(UTC)
    assert life - 30 < left.total_seconds() <= life


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        ({}, 400, "INVALID_PARAMETER_VALUE", "'endpoint' is required"),
        ({"ttl": "60s"}, 400, "INVALID_PARAMETER_VALUE", "between 300s and 3600s"),
        ({"ttl": "1h"}, 400, "INVALID_PARAMETER_VALUE", "duration in seconds"),
        ({"expire_time": "x"}, 400, "INVALID_PARAMETER_VALUE", "a timestamp"),
        ({"expire_time": soon(-5)}, 400, "INVALID_PARAMETER_VALUE", "in the future"),
        (b"[", 400, "MALFORMED_REQUEST", "expected a map"),
        (b"[]", 400, "MALFORMED_REQUEST", "expected a map"),
        ({"endpoint": "projects/x"}, 404, "NOT_FOUND", "project id not found"),
    ],
)
def test_requests_for_a_credential_that_are_wrong(api, local, body, status, code, said):
    """They are refused in the API's form."""
    if isinstance(body, dict) and body and "endpoint" not in body:
        body = {"endpoint": local.facts["endpoint"], **body}

    with pytest.raises(Refused, match=said) as caught:
        api.ask("POST", "credentials", body)

    assert (caught.value.status, caught.value.code) == (status, code)


@pytest.mark.parametrize(
    "path", ["/api/2.0/postgres/nothing", "/api/2.0/clusters/list", "/x"]
)
def test_a_path_that_is_no_api_s(api, path):
    """The service's words, which the SDK takes for NotFound."""
    status, _, text = api.raw("GET", path)

    assert status == 404
    assert json.loads(text)["error_code"] == "ENDPOINT_NOT_FOUND"


def test_the_identity_of_a_person(owner, local):
    """Has an address."""
    me = owner.current_user.me()

    assert me.emails[0].value == me.user_name == local.facts["owner"]


@pytest.mark.parametrize("seed", ["1", "2"])
def test_scim_id_is_the_same_in_every_process(principal, local, seed):
    """So that ``--data`` keeps it."""
    code = (
        "import sys; from django_lakebase.local.api.auth import get_scim_id; "
        "print(get_scim_id(sys.argv[1]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, local.facts["service_principal"]],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )

    assert principal.current_user.me().id == ended.stdout.strip()


def test_a_wrong_secret(local):
    """The SDK's error for it is a ValueError."""
    with pytest.raises(ValueError, match="invalid_client"):
        WorkspaceClient(
            host=local.url, client_id="x", client_secret="y"
        ).current_user.me()


def test_faults_of_the_api_are_seen_by_the_sdk(principal, local):
    """Each in its own way."""
    endpoint = local.facts["endpoint"]
    ask_for_one = principal.postgres.generate_database_credential

    with (
        local.fault("no-workspace-access"),
        pytest.raises(PermissionDenied, match="workspace-access entitlement"),
    ):
        ask_for_one(endpoint=endpoint)
    with local.fault("empty-credential"):
        assert ask_for_one(endpoint=endpoint).token is None
    with local.fault("clock-skew", seconds=-7200):
        skewed = ask_for_one(endpoint=endpoint).expire_time.ToDatetime()
    straight = ask_for_one(endpoint=endpoint).expire_time.ToDatetime()
    assert 7100 < (straight - skewed).total_seconds() < 7300
    with local.fault("secret-revoked"), pytest.raises(Unauthenticated):
        ask_for_one(endpoint=endpoint)


@pytest.mark.parametrize("fault", ["api-down", "api-5xx"])
def test_an_api_that_is_down(principal, local, fault):
    """It ends in the SDK's timeout of retries."""
    principal.current_user.me()

    with local.fault(fault), pytest.raises(TimeoutError):
        principal.current_user.me()


def test_an_api_that_hangs_is_let_go_by_clearing(local):
    """A request that is waiting ends when the fault does."""
    done = threading.Event()

    def wait():
        try:
            urllib.request.urlopen(f"{local.url}/oidc/.well-known/openid-configuration")
        except OSError:
            done.set()

    local.set_fault("api-silent")
    thread = threading.Thread(target=wait)
    thread.start()
    while not local.counters()["requests"]:
        pass
    assert not done.is_set()
    local.clear_faults()
    thread.join(10)

    assert done.is_set()


def test_counters_count(principal, local):
    """Requests by path, and credentials."""
    principal.postgres.generate_database_credential(endpoint=local.facts["endpoint"])

    counted = local.counters()

    assert counted["credentials_issued"] == 1
    assert counted["requests"]["/api/2.0/postgres/credentials"] == 1


def test_mistakes_about_faults_are_answered(local):
    """With the faults that there are."""
    with pytest.raises(ClientError, match="There is no fault"):
        local.set_fault("no-such")
    with pytest.raises(ClientError, match="no option"):
        local.set_fault("latency", sm=1)
    with pytest.raises(ClientError, match='"message" cannot be'):
        local.set_fault("refuse-logins", message="loud")
    with pytest.raises(ClientError, match="Is it still running"):
        call("http://127.0.0.1:9", "GET", "faults")
