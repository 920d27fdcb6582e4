"""Each fault, as the unmodified SDK and libpq meet it."""

import json
import threading
import time

import psycopg
import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import PermissionDenied, TooManyRequests
from databricks.sdk.errors.base import DatabricksError
from psycopg import errors

from django_lakebase.local.faults.registry import FAULTS
from tests.helpers.programs import wait_until_disconnected
from tests.local.conftest import Api


def refusal(dial, **own):
    """Return what a refused login is told."""
    with pytest.raises(psycopg.OperationalError) as caught:
        dial(**own)
    return str(caught.value)


def ask_for_one(client, local):
    """Ask for a credential."""
    endpoint = local.facts["endpoint"]
    return client.postgres.generate_database_credential(endpoint=endpoint)


# The API.


def test_429_is_told_with_the_seconds_to_wait(api, local):
    """As a header, once or always; the SDK waits for so long."""
    body = {"endpoint": local.facts["endpoint"]}
    local.set_fault("api-429", retry_after=7, count=1)

    status, headers, text = api.raw("POST", "/api/2.0/postgres/credentials", body)
    again, _, _ = api.raw("POST", "/api/2.0/postgres/credentials", body)

    assert (status, headers["Retry-After"]) == (429, "7")
    assert json.loads(text)["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert again == 200


def test_429_for_requests_beyond_a_rate(api, local):
    """Each principal has a rate of its own; who is within it is served."""
    body = {"endpoint": local.facts["endpoint"]}

    with local.fault("api-429", per_second=0.001):
        mine = [
            api.raw("POST", "/api/2.0/postgres/credentials", body)[0] for _ in range(3)
        ]

    assert mine == [200, 429, 429]


def test_429_in_the_sdk(principal, local):
    """It retries, and gives the last error as the cause."""
    with (
        local.fault("api-429", retry_after=1),
        pytest.raises(TimeoutError) as caught,
    ):
        ask_for_one(principal, local)

    assert isinstance(caught.value.__cause__, TooManyRequests)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_5xx_in_the_sdk(principal, local, status):
    """What is not retried is raised at once."""
    principal.current_user.me()

    with local.fault("api-5xx", status=status), pytest.raises(DatabricksError):
        ask_for_one(principal, local)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ("html", requests.exceptions.JSONDecodeError),
        ("text", requests.exceptions.JSONDecodeError),
        ("cut-off", requests.exceptions.JSONDecodeError),
        ("list", Exception),
        ("nothing", None),
    ],
)
def test_nonsense_in_the_sdk(principal, local, shape, kind):
    """It raises what its parser raises, or gives nothing."""
    principal.current_user.me()

    with local.fault("api-malformed", shape=shape):
        if kind is None:
            assert not ask_for_one(principal, local).token
            return
        with pytest.raises(kind):
            ask_for_one(principal, local)


def test_silence_ends_in_the_sdk_s_timeout(local):
    """A request is taken and never answered."""
    config = Config(
        host=local.url,
        token=local.facts["owner_token"],
        auth_type="pat",
        http_timeout_seconds=0.3,
        retry_timeout_seconds=1,
    )
    client = WorkspaceClient(config=config)

    with local.fault("api-silent"), pytest.raises(TimeoutError):
        client.current_user.me()


@pytest.mark.parametrize("where", ["api", "login", "both"])
def test_an_address_that_is_blocked(api, principal, dial, local, where):
    """At the API, discovery included, or at the gateway, or at both."""
    principal.current_user.me()

    with local.fault("ip-blocked", where=where):
        if where != "login":
            status, _, text = api.raw("GET", "/.well-known/databricks-config")
            assert status == 403
            assert "blocked by Databricks IP ACL for workspace" in text
            with pytest.raises(PermissionDenied, match="blocked by Databricks IP ACL"):
                ask_for_one(principal, local)
        if where != "api":
            said = refusal(dial)
            assert "External authorization failed." in said
            assert "blocked by Databricks IP ACL" in said


def test_a_token_may_die_early(principal, dial, local):
    """Though its expire_time says otherwise."""
    user = local.facts["service_principal"]
    with local.fault("token-life", seconds=0.2):
        answer = ask_for_one(principal, local)
        while "JWT token has expired" not in _said(dial, user, answer.token):
            time.sleep(0.01)

    assert answer.expire_time is not None
    dial(user=user, password=answer.token).close()


def _said(dial, user, token):
    try:
        dial(user=user, password=token).close()
    except psycopg.OperationalError as exc:
        return str(exc)
    return ""


# Endpoints.


def test_starting_ends_by_itself(dial, dial_until, local):
    """After so many seconds."""
    local.set_fault("starting", seconds=2)

    assert "the database system is starting up" in refusal(dial)
    dial_until().close()


def test_suspended_until_cleared(api, dial, local):
    """Clearing releases a login that waits for the endpoint to wake."""
    local.set_fault("suspend", wake=600)
    shown = api.ask("GET", local.facts["endpoint"])["status"]["current_state"]
    sessions = []
    thread = threading.Thread(target=lambda: sessions.append(dial(connect_timeout=60)))
    thread.start()
    while not local.counters()["open_connections"]:
        pass
    local.clear_faults()
    thread.join(60)
    sessions[0].close()

    assert shown == "IDLE"


def test_disabled_by_a_fault_enabled_by_the_api(api, dial, local):
    """The mend is the real one."""
    with local.fault("endpoint-disabled"):
        assert "endpoint is disabled" in refusal(dial)
        name = f"{local.facts['endpoint']}?update_mask=spec.disabled"
        api.do("PATCH", name, {"spec": {"disabled": False}})
        dial().close()


def test_a_moved_endpoint(api, dial, local):
    """The old name leads nowhere; the API knows the new one."""
    old = local.facts["host"]
    session = dial()
    with local.fault("endpoint-moved"):
        new = api.ask("GET", local.facts["endpoint"])["status"]["hosts"]["host"]
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        assert "endpoint cannot be found" in refusal(dial)
        dial(host=new).close()

    assert new != old
    dial().close()


def test_too_many_connections(dial, local):
    """Beyond the limit."""
    # Those of earlier tests may still be closing.
    wait_until_disconnected(local)
    with local.fault("too-many-connections", limit=1), dial():
        assert "remaining connection slots are reserved" in refusal(dial)
    dial().close()


def test_connections_at_work_are_cut(dial, local):
    """And those that do nothing are left alone."""
    idle, busy = dial(), dial()
    idle.execute("SELECT 1")
    ended = []

    def work():
        try:
            busy.execute("SELECT pg_sleep(60)")
        except psycopg.OperationalError as exc:
            ended.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    with dial() as watcher:
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
        while not watcher.execute(sleeping).fetchone():
            pass
    local.set_fault("cut", which="busy")
    thread.join(60)

    assert len(ended) == 1
    assert idle.execute("SELECT 1").fetchone() == (1,)
    idle.close()


def test_a_stalled_connection_says_nothing(dial, local):
    """Neither an answer nor an end, until it is cleared; new ones are well."""
    session = dial()
    answers = []
    local.set_fault("stall")
    thread = threading.Thread(
        target=lambda: answers.append(session.execute("SELECT 7").fetchone())
    )
    thread.start()
    with dial() as other:
        assert other.execute("SELECT 1").fetchone() == (1,)
        session_id = session.info.backend_pid
        state = "SELECT state FROM pg_stat_activity WHERE pid = %s"
        assert other.execute(state, (session_id,)).fetchone() == ("idle",)
    assert answers == []
    local.clear_faults()
    thread.join(60)
    session.close()

    assert answers == [(7,)]


# The service principal's role. What these faults change is real.


def test_a_role_that_is_missing_can_be_made(dial, local):
    """By the guide's SQL; clearing the fault brings the old one back."""
    principal, owner = local.facts["service_principal"], local.facts["owner"]
    with dial() as session:
        [before] = session.execute("SELECT current_user::regrole::oid").fetchone()
    with local.fault("role-missing"):
        assert "does not exist" in refusal(dial)
        with dial(user=owner) as session:
            make = "SELECT databricks_create_role(%s, 'SERVICE_PRINCIPAL')"
            session.execute(make, (principal,))
        with dial() as session:
            [between] = session.execute("SELECT current_user::regrole::oid").fetchone()
    with dial() as session:
        [after] = session.execute("SELECT current_user::regrole::oid").fetchone()

    assert before == after != between


def test_a_role_without_a_label(dial, local):
    """It exists, and takes no tokens."""
    with local.fault("role-unlabelled"):
        assert "no role security label was configured" in refusal(dial)
    dial().close()


def test_grants_that_are_missing(dial, local):
    """PostgreSQL itself refuses; the owner's GRANT mends it."""
    principal, owner = local.facts["service_principal"], local.facts["owner"]
    database = local.facts["database"]
    with local.fault("no-grants"):
        assert "permission denied for database" in refusal(dial)
        with dial(user=owner) as session:
            session.execute(f'GRANT CONNECT ON DATABASE {database} TO "{principal}"')
        dial().close()
    with (
        local.fault("no-grants", what="schema"),
        dial() as session,
        pytest.raises(errors.InsufficientPrivilege, match="schema public"),
    ):
        session.execute("CREATE TABLE public.x (a int)")
    with dial() as session:
        session.execute("CREATE TABLE public.x (a int)")
        session.execute("DROP TABLE public.x")


def test_a_fault_set_twice_is_undone_once(dial, local):
    """What it did is undone before it is done again."""
    local.set_fault("role-missing")
    local.set_fault("role-missing")
    local.clear_faults()

    dial().close()


# The page.


def test_the_page_shows_the_state(local):
    """Endpoints, branches, faults and counters, for a person."""
    with local.fault("api-slow", ms=1):
        _, headers, text = Api(local.url, "").raw("GET", "/_local/")

    assert headers.get_content_type() == "text/html"
    assert local.facts["endpoint"] in text.replace("<wbr>", "")
    assert local.facts["host"] in text
    assert "<dt>api-slow</dt><dd>ms=1.0, path=credentials" in text
    assert "<dt>refusals</dt><dd>0</dd>" in text
    assert "&#x27;" not in text.partition("Counters")[2].partition("Available")[0]
    for name in FAULTS:
        assert name in text
    for secret in ("owner_token", "native_password"):
        assert local.facts[secret] not in text
