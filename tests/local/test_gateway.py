"""Logins at the gateway, sessions behind it, and the faults that act on them."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql


def test_token_opens_a_session_as_the_role_of_its_identity(connect, local):
    with connect() as session:
        row = session.execute("SELECT current_user, current_database()").fetchone()

    assert row == (local.facts["service_principal"], local.facts["database"])


@pytest.mark.parametrize(
    ("ttl", "message"),
    [(-1, "JWT token has expired"), (60, None)],
    ids=["expired", "valid"],
)
def test_token_expiry_is_checked_at_login(connect, login_error, local, ttl, message):
    token = local.issue_token(local.facts["service_principal"], ttl=ttl)

    if message:
        assert message in login_error(password=token)
    else:
        connect(password=token).close()


def test_session_continues_after_its_token_expires(connect, local):
    token = local.issue_token(local.facts["service_principal"], ttl=0.5)
    with connect(password=token) as session:
        while True:
            session.execute("SELECT 1")
            with contextlib.suppress(psycopg.OperationalError):
                connect(password=token).close()
                continue
            break
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_token_of_another_identity_is_rejected(login_error, local):
    token = local.issue_token(local.facts["owner"])

    assert "no role security label" in login_error(password=token)


@pytest.mark.parametrize("password", ["secret", "dapi0123456789"])
def test_password_that_is_not_a_jwt_is_rejected(login_error, password):
    """The API's personal access tokens start with "dapi"."""
    assert "not a valid JWT encoding" in login_error(password=password)


@pytest.fixture
def group_role(connect, local):
    """Create the role of the group with the SQL that the service documents."""
    group = local.facts["group"]
    with connect(user=local.facts["owner"]) as owner:
        owner.execute("SELECT databricks_create_role(%s, 'GROUP')", [group])
        yield group
        owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(group)))


@pytest.mark.parametrize("member", ["owner", "service_principal"])
def test_member_logs_in_to_the_role_of_their_group(connect, local, group_role, member):
    """Members use their own token; the session's user is the group."""
    token = local.issue_token(local.facts[member])

    with connect(user=group_role, password=token) as session:
        row = session.execute("SELECT session_user").fetchone()

    assert row == (group_role,)


@pytest.mark.parametrize("subject", ["stranger@lakebase.test", "local-developers"])
def test_role_of_a_group_rejects_tokens_of_nonmembers(
    login_error, local, group_role, subject
):
    """A token with the group's name as its subject is not a member's token either."""
    token = local.issue_token(subject)

    assert "no role security label" in login_error(user=group_role, password=token)


def test_login_to_a_role_that_does_not_exist_fails(login_error):
    assert 'role "stranger" does not exist' in login_error(user="stranger")


def test_login_to_a_database_that_does_not_exist_fails(login_error):
    assert 'database "nowhere" does not exist' in login_error(dbname="nowhere")


def test_login_to_an_unknown_host_name_fails(login_error, local):
    """The gateway finds the endpoint by the server name in the TLS handshake."""
    other = "ep-none." + local.facts["host"].partition(".")[2]

    assert "endpoint cannot be found" in login_error(host=other)


def test_login_without_sni_fails(login_error):
    """A client that connects to an IP address sends no server name."""
    error = login_error(host="127.0.0.1", sslmode="require")

    assert "does not have SNI" in error


def test_login_without_tls_fails(login_error):
    assert "Invalid protocol version" in login_error(sslmode="disable")


def test_databricks_create_role_makes_a_role_that_accepts_tokens(
    connect, login_error, local
):
    """A role made with plain CREATE ROLE accepts none."""
    with connect(user=local.facts["owner"]) as owner:
        owner.execute("CREATE EXTENSION IF NOT EXISTS databricks_auth")
        owner.execute("SELECT databricks_create_role('new-app', 'SERVICE_PRINCIPAL')")
        owner.execute("CREATE ROLE plain LOGIN")
        with pytest.raises(errors.DuplicateObject):
            owner.execute("SELECT databricks_create_role('new-app', 'USER')")
        with pytest.raises(errors.InvalidParameterValue):
            owner.execute("SELECT databricks_create_role('x', 'ROBOT')")
        for role in ("new-app", "plain"):
            grant = sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
            names = sql.Identifier(local.facts["database"]), sql.Identifier(role)
            owner.execute(grant.format(*names))

        with connect(user="new-app") as session:
            assert session.info.user == "new-app"
        assert "no role security label" in login_error(user="plain")
        for role in ("new-app", "plain"):
            revoke = sql.SQL("REVOKE CONNECT ON DATABASE {} FROM {}")
            names = sql.Identifier(local.facts["database"]), sql.Identifier(role)
            owner.execute(revoke.format(*names))
            owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_databricks_create_role_requires_the_right_to_create_roles(connect):
    """The service principal lacks it."""
    with connect() as session, pytest.raises(errors.InsufficientPrivilege):
        session.execute("SELECT databricks_create_role('x', 'USER')")


def test_native_password_is_checked_by_postgresql(connect, login_error, native_login):
    with connect(**native_login) as session:
        assert session.info.user == native_login["user"]

    error = login_error(**{**native_login, "password": "wrong"})
    assert "password authentication failed" in error


def test_cancel_request_cancels_the_running_statement(connect):
    """The client sends a CancelRequest over a separate connection."""
    with connect() as session:
        timer = threading.Timer(0.2, session.cancel)
        timer.start()
        with pytest.raises(errors.QueryCanceled):
            session.execute("SELECT pg_sleep(60)")
        timer.join()


def test_cancel_request_does_not_cancel_a_later_statement(connect):
    """The gateway closes the cancel connection after PostgreSQL has sent its signal."""
    with connect() as session:
        for _ in range(50):
            session.cancel()
            with contextlib.suppress(errors.QueryCanceled):
                session.execute("SELECT 1")
            session.execute("SELECT count(*) FROM generate_series(1, 20000)")


def test_login_succeeds_after_the_admin_connection_was_terminated(connect, local):
    """PostgreSQL ends all sessions when it restarts after a backend crashed."""
    socket_file = Path(local.facts["postgres_socket"])
    port = socket_file.suffix[1:]
    with psycopg.connect(
        host=str(socket_file.parent), port=port, user="cloud_admin", dbname="postgres"
    ) as session:
        ended = session.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            "WHERE usename = 'cloud_admin' AND backend_type = 'client backend' "
            "AND pid <> pg_backend_pid()"
        ).fetchall()

    connect().close()

    # PgBouncer may have a session as the same user.
    assert set(ended) == {(True,)}


def test_databricks_create_role_belongs_to_the_extension(connect):
    """Otherwise pg_dump would dump the function, and every restore would fail."""
    with connect() as session:
        row = session.execute(
            "SELECT deptype FROM pg_depend WHERE classid = 'pg_proc'::regclass "
            "AND objid = 'databricks_create_role'::regproc AND refclassid = "
            "'pg_extension'::regclass"
        ).fetchone()

    assert row == ("e",)


def test_startup_parameters_are_forwarded_to_postgresql(connect):
    with connect(options="-c work_mem=5MB", application_name="me") as session:
        assert session.execute("SHOW work_mem").fetchone() == ("5MB",)
        assert session.execute("SHOW application_name").fetchone() == ("me",)


def test_bulk_copy_reads_back_as_many_bytes_as_it_wrote(connect):
    row = "x" * 1000 + "\n"
    with connect() as session, session.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE bulk (line text)")
        with cursor.copy("COPY bulk FROM STDIN") as copy:
            for _ in range(10_000):
                copy.write(row)
        with cursor.copy("COPY bulk TO STDOUT") as copy:
            received = sum(len(part) for part in copy)

    assert received == 10_000 * len(row)


def test_a_hundred_simultaneous_sessions_work(connect, local):
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(connect()) for _ in range(100)]
        assert all(s.execute("SELECT 1").fetchone() == (1,) for s in sessions)
        assert local.fetch_counters()["open_connections"] >= 100


def test_suspend_ends_sessions_with_admin_shutdown_and_the_next_login_wakes(
    connect, local
):
    with connect() as session:
        local.set_fault("suspend", wake_seconds=0.1)
        # Early versions of psycopg 3.2 raise the base class here.
        with pytest.raises(psycopg.OperationalError, match="administrator command"):
            session.execute("SELECT 1")

    with connect() as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert "suspend" not in local.fetch_counters()


def test_login_fails_while_the_server_starts(login_error, local):
    local.set_fault("server-starting", seconds=0)

    assert "starting up" in login_error()


def test_reset_connections_resets_idle_sessions_or_all_sessions(connect, local):
    with connect() as busy, connect() as idle:
        busy.execute("SELECT 1")
        idle.execute("SELECT 1")
        timer = threading.Timer(
            0.2, local.set_fault, ["reset-connections"], {"state": "idle"}
        )
        timer.start()
        busy.execute("SELECT pg_sleep(0.6)")
        timer.join()
        assert busy.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT 1")
        local.set_fault("reset-connections")
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")


def test_latency_delays_a_round_trip_by_at_least_its_value(connect, local):
    with local.fault("latency", ms=50), connect() as session:
        started_at = time.monotonic()
        session.execute("SELECT 1")
        assert time.monotonic() - started_at >= 0.05


def test_bytes_stay_in_order_when_latency_is_cleared_during_a_copy(connect, local):
    local.set_fault("latency", ms=200)
    copy = "COPY (SELECT generate_series(1, 1000000)) TO STDOUT"
    with connect() as session, session.cursor().copy(copy) as rows:
        for number, row in enumerate(rows, 1):
            if number == 200000:
                local.clear_faults()
            assert int(bytes(row)) == number


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x00\x00\x04",
        b"\x7f\xff\xff\xff",
        bytes.fromhex("0000000804d2162f") + b"not tls at all",
        bytes.fromhex("0000000804d21630"),
        bytes.fromhex("0000001004d2162e0000000100000002"),
    ],
)
def test_gateway_serves_the_next_login_after_malformed_bytes(connect, local, data):
    address = local.facts["hostaddr"], local.facts["port"]
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while client.recv(1000):
                pass

    connect().close()
