"""The effect of each fault on the unmodified SDK and on libpq."""

import json
import threading
import time
from pathlib import Path

import psycopg
import pytest
import requests
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import PermissionDenied, TooManyRequests
from databricks.sdk.errors.base import DatabricksError
from psycopg import errors
from psycopg.sql import SQL, Identifier

from django_lakebase.local.faults import FAULTS
from tests.helpers.app_servers import wait_until_disconnected
from tests.local.rest_api import RestApi


def issue_credential(client, local):
    """Request a credential for the default endpoint through the SDK."""
    endpoint = local.facts["endpoint"]
    return client.postgres.generate_database_credential(endpoint=endpoint)


# The API.


def test_api_429_sends_retry_after_for_the_counted_requests(api, local):
    body = {"endpoint": local.facts["endpoint"]}
    local.set_fault("api-429", retry_after=7, count=1)

    status, headers, text = api.send("POST", "/api/2.0/postgres/credentials", body)
    next_status, _, _ = api.send("POST", "/api/2.0/postgres/credentials", body)

    assert (status, headers["Retry-After"]) == (429, "7")
    assert json.loads(text)["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert next_status == 200


def test_api_429_rejects_only_requests_above_the_rate(api, local):
    """Each identity has its own rate."""
    body = {"endpoint": local.facts["endpoint"]}

    with local.fault("api-429", allowed_per_second=0.001):
        statuses = [
            api.send("POST", "/api/2.0/postgres/credentials", body)[0] for _ in range(3)
        ]

    assert statuses == [200, 429, 429]


def test_api_429_makes_the_sdk_retry_until_its_timeout(principal_client, local):
    with (
        local.fault("api-429", retry_after=1),
        pytest.raises(TimeoutError) as caught,
    ):
        issue_credential(principal_client, local)

    assert isinstance(caught.value.__cause__, TooManyRequests)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_api_5xx_raises_databricks_error_in_the_sdk(principal_client, local, status):
    """The SDK does not retry these statuses."""
    principal_client.current_user.me()

    with local.fault("api-5xx", status=status), pytest.raises(DatabricksError):
        issue_credential(principal_client, local)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("html", requests.exceptions.JSONDecodeError),
        ("text", requests.exceptions.JSONDecodeError),
        ("truncated", requests.exceptions.JSONDecodeError),
        ("list", Exception),
        ("empty", None),
    ],
)
def test_api_malformed_raises_a_parser_error_in_the_sdk(
    principal_client, local, body, error
):
    """With an empty body, the SDK returns a credential without a token."""
    principal_client.current_user.me()

    with local.fault("api-malformed", body=body):
        if error is None:
            assert not issue_credential(principal_client, local).token
            return
        with pytest.raises(error):
            issue_credential(principal_client, local)


def test_api_hang_raises_timeout_error_in_the_sdk(local):
    config = Config(
        host=local.url,
        token=local.facts["owner_token"],
        auth_type="pat",
        http_timeout_seconds=0.3,
        retry_timeout_seconds=1,
    )
    client = WorkspaceClient(config=config)

    with local.fault("api-hang"), pytest.raises(TimeoutError):
        client.current_user.me()


@pytest.mark.parametrize("scope", ["api", "login", "both"])
def test_ip_blocked_rejects_api_requests_and_logins(
    api, principal_client, login_error, local, scope
):
    """The API also rejects the requests with which the SDK discovers the workspace."""
    principal_client.current_user.me()

    with local.fault("ip-blocked", scope=scope):
        if scope != "login":
            status, _, text = api.send("GET", "/.well-known/databricks-config")
            assert status == 403
            assert "blocked by Databricks IP ACL for workspace" in text
            with pytest.raises(PermissionDenied, match="blocked by Databricks IP ACL"):
                issue_credential(principal_client, local)
        if scope != "api":
            error = login_error()
            assert "External authorization failed." in error
            assert "blocked by Databricks IP ACL" in error


def test_short_token_lifetime_expires_a_token_before_its_expire_time(
    principal_client, connect, local
):
    """The same token is valid again when the fault is cleared."""

    def try_login(token):
        try:
            connect(password=token).close()
        except psycopg.OperationalError as exc:
            return str(exc)
        return ""

    with local.fault("short-token-lifetime", seconds=0.2):
        credential = issue_credential(principal_client, local)
        while "JWT token has expired" not in try_login(credential.token):
            time.sleep(0.01)

    assert credential.expire_time is not None
    connect(password=credential.token).close()


# Endpoints.


def test_server_starting_ends_after_its_seconds(login_error, connect_when_ready, local):
    local.set_fault("server-starting", seconds=2)

    assert "the database system is starting up" in login_error()
    connect_when_ready().close()


def test_clearing_suspend_completes_a_login_that_waits_for_wake_up(api, connect, local):
    local.set_fault("suspend", wake_seconds=600)
    state = api.request("GET", local.facts["endpoint"])["status"]["current_state"]
    sessions = []
    thread = threading.Thread(
        target=lambda: sessions.append(connect(connect_timeout=60))
    )
    thread.start()
    while not local.fetch_counters()["open_connections"]:
        pass
    local.clear_faults()
    thread.join(60)
    sessions[0].close()

    assert state == "IDLE"


def test_endpoint_disabled_can_be_enabled_through_the_api(
    api, connect, login_error, local
):
    with local.fault("endpoint-disabled"):
        assert "endpoint is disabled" in login_error()
        name = f"{local.facts['endpoint']}?update_mask=spec.disabled"
        api.run_operation("PATCH", name, {"spec": {"disabled": False}})
        connect().close()


def test_endpoint_moved_rejects_the_old_host_and_accepts_the_new_one(
    api, connect, login_error, local
):
    """It ends open sessions, and the API returns the new host."""
    old_host = local.facts["host"]
    session = connect()
    with local.fault("endpoint-moved"):
        moved = api.request("GET", local.facts["endpoint"])
        new_host = moved["status"]["hosts"]["host"]
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        assert "endpoint cannot be found" in login_error()
        connect(host=new_host).close()

    assert new_host != old_host
    connect().close()


def test_too_many_connections_rejects_logins_above_the_limit(
    connect, login_error, local
):
    # Connections of earlier tests may still be closing.
    wait_until_disconnected(local)
    with local.fault("too-many-connections", limit=1), connect():
        assert "remaining connection slots are reserved" in login_error()
    connect().close()


def test_reset_connections_with_state_busy_keeps_idle_connections(connect, local):
    idle, busy = connect(), connect()
    idle.execute("SELECT 1")
    busy_errors = []

    def run_statement():
        try:
            busy.execute("SELECT pg_sleep(60)")
        except psycopg.OperationalError as exc:
            busy_errors.append(exc)

    thread = threading.Thread(target=run_statement)
    thread.start()
    with connect() as observer:
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
        while not observer.execute(sleeping).fetchone():
            pass
    local.set_fault("reset-connections", state="busy")
    thread.join(60)

    assert len(busy_errors) == 1
    assert idle.execute("SELECT 1").fetchone() == (1,)
    idle.close()


def test_freeze_connections_holds_back_all_bytes_until_cleared(connect, local):
    """Connections opened during the fault work."""
    session = connect()
    rows = []
    local.set_fault("freeze-connections")
    thread = threading.Thread(
        target=lambda: rows.append(session.execute("SELECT 7").fetchone())
    )
    thread.start()
    with connect() as other:
        assert other.execute("SELECT 1").fetchone() == (1,)
        backend_pid = session.info.backend_pid
        state = "SELECT state FROM pg_stat_activity WHERE pid = %s"
        assert other.execute(state, (backend_pid,)).fetchone() == ("idle",)
    assert rows == []
    local.clear_faults()
    thread.join(60)
    session.close()

    assert rows == [(7,)]


# The service principal's role: these faults change roles and grants in PostgreSQL.


def test_role_missing_can_be_fixed_and_clearing_restores_the_original_role(
    connect, login_error, local
):
    """The owner creates a new role with the SQL of the service's guide."""
    principal, owner = local.facts["service_principal"], local.facts["owner"]
    with connect() as session:
        [original] = session.execute("SELECT current_user::regrole::oid").fetchone()
    with local.fault("role-missing"):
        assert "does not exist" in login_error()
        with connect(user=owner) as session:
            create_role = "SELECT databricks_create_role(%s, 'SERVICE_PRINCIPAL')"
            session.execute(create_role, (principal,))
        with connect() as session:
            [created] = session.execute("SELECT current_user::regrole::oid").fetchone()
    with connect() as session:
        [restored] = session.execute("SELECT current_user::regrole::oid").fetchone()

    assert original == restored != created


def test_role_without_label_rejects_tokens(connect, login_error, local):
    with local.fault("role-without-label"):
        assert "no role security label was configured" in login_error()
    connect().close()


def test_role_without_label_removes_the_comment_of_an_earlier_version(
    connect, login_error, local
):
    """Earlier versions stored the identity type in the comment of the role."""
    principal = local.facts["service_principal"]
    socket_file = Path(local.facts["postgres_socket"])
    with psycopg.connect(
        host=str(socket_file.parent),
        port=socket_file.suffix[1:],
        user="cloud_admin",
        dbname="postgres",
        autocommit=True,
    ) as admin:
        admin.execute("DELETE FROM pg_shseclabel WHERE label LIKE '%type=SERVICE%'")
        comment = "COMMENT ON ROLE {} IS 'databricks_auth: SERVICE_PRINCIPAL'"
        admin.execute(SQL(comment).format(Identifier(principal)))

    connect().close()
    with local.fault("role-without-label"):
        assert "no role security label was configured" in login_error()
    connect().close()


SELECT_PRIVILEGES = """
SELECT has_schema_privilege('public', 'CREATE'),
    has_database_privilege(current_database(), 'CREATE'),
    (SELECT count(*) FROM pg_namespace, aclexplode(nspacl)
     WHERE nspname = 'public' AND grantee = current_user::regrole)
"""


def test_grants_reset_revokes_only_privileges_on_the_schema_public(connect, local):
    with connect() as session:
        session.execute("CREATE TABLE public.kept (a int)")
        session.execute("CREATE SCHEMA own")
        before = session.execute(SELECT_PRIVILEGES).fetchone()
        with local.fault("grants-reset"):
            during = session.execute(SELECT_PRIVILEGES).fetchone()
            with pytest.raises(errors.InsufficientPrivilege, match="schema public"):
                session.execute("CREATE TABLE public.x (a int)")
            session.execute("INSERT INTO public.kept VALUES (1)")
            session.execute("CREATE TABLE own.x (a int)")
        after = session.execute(SELECT_PRIVILEGES).fetchone()
        session.execute("DROP TABLE public.kept")
        session.execute("DROP SCHEMA own CASCADE")

    assert before == after == (True, True, 2)
    assert during == (False, True, 0)


def test_grants_reset_also_revokes_a_grant_of_the_owner(connect, local):
    """PostgreSQL records databricks_superuser as the grantor."""
    principal, owner = local.facts["service_principal"], local.facts["owner"]
    with local.fault("grants-reset"):
        with connect(user=owner) as session:
            session.execute(f'GRANT CREATE ON SCHEMA public TO "{principal}"')
        with connect() as session:
            fixed = session.execute(SELECT_PRIVILEGES).fetchone()
        local.set_fault("grants-reset")
        with connect() as session:
            repeated = session.execute(SELECT_PRIVILEGES).fetchone()

    assert fixed == (True, True, 1)
    assert repeated == (False, True, 0)


def test_grants_revoked_affects_connect_or_the_schema_until_cleared(
    connect, login_error, local
):
    """A GRANT by the owner also restores the right to connect."""
    principal, owner = local.facts["service_principal"], local.facts["owner"]
    database = local.facts["database"]
    with local.fault("grants-revoked"):
        assert "permission denied for database" in login_error()
        with connect(user=owner) as session:
            session.execute(f'GRANT CONNECT ON DATABASE {database} TO "{principal}"')
        connect().close()
    with (
        local.fault("grants-revoked", privilege="schema"),
        connect() as session,
        pytest.raises(errors.InsufficientPrivilege, match="schema public"),
    ):
        session.execute("CREATE TABLE public.x (a int)")
    with connect() as session:
        session.execute("CREATE TABLE public.x (a int)")
        session.execute("DROP TABLE public.x")


def test_clearing_a_fault_that_was_set_twice_undoes_its_effect(connect, local):
    """Setting a fault again first undoes its earlier effect."""
    local.set_fault("role-missing")
    local.set_fault("role-missing")
    local.clear_faults()

    connect().close()


# The status page.


def test_status_page_shows_endpoint_faults_and_counters_but_no_secrets(local):
    with local.fault("api-slow", ms=1):
        _, headers, text = RestApi(local.url, "").send("GET", "/_local/")

    assert headers.get_content_type() == "text/html"
    assert local.facts["endpoint"] in text.replace("<wbr>", "")
    assert local.facts["host"] in text
    assert "<dt>api-slow</dt><dd>ms=1.0, scope=credentials" in text
    assert "<dt>rejections</dt><dd>0</dd>" in text
    assert "&#x27;" not in text.partition("Counters")[2].partition("Available")[0]
    for name in FAULTS:
        assert name in text
    for secret in ("owner_token", "native_password"):
        assert local.facts[secret] not in text
