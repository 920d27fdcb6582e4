"""The API: through the unmodified SDK, and as plain HTTP."""

import json
import threading
import urllib.error
import urllib.request

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import NotFound, PermissionDenied, Unauthenticated

from django_lakebase.local.client import ClientError, call


@pytest.fixture
def principal(local):
    """Give the service principal's client."""
    env = local.env
    config = Config(
        host=local.url,
        client_id=env["DATABRICKS_CLIENT_ID"],
        client_secret=env["DATABRICKS_CLIENT_SECRET"],
        retry_timeout_seconds=1,
    )
    return WorkspaceClient(config=config)


@pytest.fixture
def owner(local):
    """Give the owner's client, which has a personal access token."""
    token = local.facts["owner_token"]
    return WorkspaceClient(host=local.url, token=token, auth_type="pat")


def ask(url, method="GET", body=None, token=None):
    """Send one request and return status and answer."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


def test_both_ways_to_log_in(principal, owner, local):
    """A secret for programs, a token for people."""
    assert principal.current_user.me().user_name == local.facts["service_principal"]
    assert owner.current_user.me().user_name == local.facts["owner"]


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
    url = f"{local.url}/api/2.0/postgres/projects"

    assert ask(url)[0] == 401
    assert ask(url, token="eyJh.eyJz.x")[0] == 401


def test_a_life_may_be_asked_for(local):
    """Shorter than the default; the guide's REST call does so."""
    url = f"{local.url}/api/2.0/postgres/credentials"
    body = {"endpoint": local.facts["endpoint"], "ttl": "300s"}

    status, answer = ask(url, "POST", body, local.facts["owner_token"])

    assert status == 200
    assert set(answer) == {"token", "expire_time"}


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


@pytest.mark.parametrize("mode", ["refuse", "503"])
def test_an_api_that_is_down(principal, local, mode):
    """It ends in the SDK's timeout of retries."""
    principal.current_user.me()

    with local.fault("api-down", mode=mode), pytest.raises(TimeoutError):
        principal.current_user.me()


def test_an_api_that_hangs_is_let_go_by_clearing(local):
    """A request that is waiting ends when the fault does."""
    done = threading.Event()

    def wait():
        try:
            urllib.request.urlopen(f"{local.url}/oidc/.well-known/openid-configuration")
        except OSError:
            done.set()

    local.set_fault("api-down", mode="hang")
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
    with pytest.raises(ClientError, match="no setting"):
        local.set_fault("latency", sm=1)
    with pytest.raises(ClientError, match="no voice"):
        local.set_fault("refuse-logins", voice="loud")
    with pytest.raises(ClientError, match="Is it still running"):
        call("http://127.0.0.1:9", "GET", "faults")
