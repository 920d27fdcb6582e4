"""The gateway: logins as psycopg makes them, and what it answers."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import psycopg
import pytest
from psycopg import errors, sql


def refused(dial, **own):
    """Return what a refused login is told."""
    with pytest.raises(psycopg.OperationalError) as caught:
        dial(**own)
    return str(caught.value)


def test_a_token_opens_a_session(dial, local):
    """As the role of its identity."""
    with dial() as session:
        row = session.execute("SELECT current_user, current_database()").fetchone()

    assert row == (local.facts["service_principal"], local.facts["database"])


@pytest.mark.parametrize(
    ("life", "said"), [(-1, "JWT token has expired"), (60, None)], ids=["over", "good"]
)
def test_expiry_is_looked_at(dial, local, life, said):
    """At the login."""
    token = local.issue(local.facts["service_principal"], ttl=life)

    if said:
        assert said in refused(dial, password=token)
    else:
        dial(password=token).close()


def test_expiry_is_not_looked_at_again(dial, local):
    """A session outlives its token."""
    token = local.issue(local.facts["service_principal"], ttl=0.5)
    with dial(password=token) as session:
        while True:
            session.execute("SELECT 1")
            with contextlib.suppress(psycopg.OperationalError):
                dial(password=token).close()
                continue
            break
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_token_of_another_identity(dial, local):
    """It is good in the workspace, and not for this role."""
    token = local.issue(local.facts["owner"])

    assert "no role security label" in refused(dial, password=token)


@pytest.mark.parametrize("password", ["secret", "dapi0123456789"])
def test_what_is_no_token(dial, password):
    """A password, or a token for the API."""
    assert "not a valid JWT encoding" in refused(dial, password=password)


@pytest.fixture
def group_role(dial, local):
    """Create the role of the group, with the SQL that the service documents."""
    group = local.facts["group"]
    with dial(user=local.facts["owner"]) as owner:
        owner.execute("SELECT databricks_create_role(%s, 'GROUP')", [group])
        yield group
        owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(group)))


@pytest.mark.parametrize("member", ["owner", "service_principal"])
def test_members_log_in_to_the_role_of_their_group(dial, local, group_role, member):
    """Each with their own token; in the session all of them are the group."""
    token = local.issue(local.facts[member])

    with dial(user=group_role, password=token) as session:
        row = session.execute("SELECT session_user").fetchone()

    assert row == (group_role,)


@pytest.mark.parametrize("other", ["stranger@lakebase.test", "local-developers"])
def test_role_of_a_group_refuses_those_who_are_not_members(
    dial, local, group_role, other
):
    """A token whose subject has the group's name is no member's token either."""
    token = local.issue(other)

    assert "no role security label" in refused(dial, user=group_role, password=token)


def test_a_role_that_was_never_made(dial):
    """PostgreSQL's own words."""
    assert 'role "nobody" does not exist' in refused(dial, user="nobody")


def test_a_database_that_does_not_exist(dial):
    """PostgreSQL answers it itself, through the gateway."""
    assert 'database "nowhere" does not exist' in refused(dial, dbname="nowhere")


def test_a_host_that_is_no_endpoint(dial, local):
    """Routing is by the name in the TLS handshake."""
    other = "ep-none." + local.facts["host"].partition(".")[2]

    assert "endpoint cannot be found" in refused(dial, host=other)


def test_a_connection_without_a_name(dial, local):
    """An address sends none."""
    said = refused(dial, host="127.0.0.1", sslmode="require")

    assert "does not have SNI" in said


def test_a_connection_without_tls(dial):
    """It ends before any password is asked for."""
    assert "Invalid protocol version" in refused(dial, sslmode="disable")


def test_the_guide_s_sql_makes_a_role(dial, local):
    """As written, by the owner; a plain role takes no tokens."""
    with dial(user=local.facts["owner"]) as owner:
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

        with dial(user="new-app") as session:
            assert session.info.user == "new-app"
        assert "no role security label" in refused(dial, user="plain")
        for role in ("new-app", "plain"):
            revoke = sql.SQL("REVOKE CONNECT ON DATABASE {} FROM {}")
            names = sql.Identifier(local.facts["database"]), sql.Identifier(role)
            owner.execute(revoke.format(*names))
            owner.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_only_those_who_may_make_roles(dial):
    """The service principal may not."""
    with dial() as session, pytest.raises(errors.InsufficientPrivilege):
        session.execute("SELECT databricks_create_role('x', 'USER')")


def test_a_native_password_goes_through(dial, local):
    """SCRAM is between the client and PostgreSQL."""
    facts = local.facts
    with dial(user=facts["native_user"], password=facts["native_password"]) as session:
        assert session.info.user == facts["native_user"]

    said = refused(dial, user=facts["native_user"], password="wrong")
    assert "password authentication failed" in said


def test_a_statement_can_be_cancelled(dial):
    """CancelRequest comes on a connection of its own."""
    with dial() as session:
        timer = threading.Timer(0.2, session.cancel)
        timer.start()
        with pytest.raises(errors.QueryCanceled):
            session.execute("SELECT pg_sleep(60)")
        timer.join()


def test_a_cancel_that_has_returned_hits_nothing_later(dial):
    """The client is let go when PostgreSQL has sent its signal, not before."""
    with dial() as session:
        for _ in range(50):
            session.cancel()
            with contextlib.suppress(errors.QueryCanceled):
                session.execute("SELECT 1")
            session.execute("SELECT count(*) FROM generate_series(1, 20000)")


def test_logins_go_on_without_the_gateway_s_own_session(dial, local):
    """PostgreSQL ends it when it restarts itself after the crash of a backend."""
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

    dial().close()

    assert ended == [(True,)]


def test_the_function_belongs_to_the_extension(dial):
    """Or pg_dump would write it down, and no restore succeed."""
    with dial() as session:
        row = session.execute(
            "SELECT deptype FROM pg_depend WHERE classid = 'pg_proc'::regclass "
            "AND objid = 'databricks_create_role'::regproc AND refclassid = "
            "'pg_extension'::regclass"
        ).fetchone()

    assert row == ("e",)


def test_startup_parameters_arrive(dial):
    """Options and names are PostgreSQL's to read."""
    with dial(options="-c work_mem=5MB", application_name="me") as session:
        assert session.execute("SHOW work_mem").fetchone() == ("5MB",)
        assert session.execute("SHOW application_name").fetchone() == ("me",)


def test_megabytes_go_both_ways(dial):
    """Bytes are moved, in order, and nothing is lost."""
    row = "x" * 1000 + "\n"
    with dial() as session, session.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE bulk (line text)")
        with cursor.copy("COPY bulk FROM STDIN") as copy:
            for _ in range(10_000):
                copy.write(row)
        with cursor.copy("COPY bulk TO STDOUT") as copy:
            got = sum(len(part) for part in copy)

    assert got == 10_000 * len(row)


def test_a_hundred_sessions_at_once(dial, local):
    """As many as a busy site has."""
    with contextlib.ExitStack() as stack:
        sessions = [stack.enter_context(dial()) for _ in range(100)]
        assert all(s.execute("SELECT 1").fetchone() == (1,) for s in sessions)
        assert local.counters()["open_connections"] >= 100


def test_suspending_ends_sessions_in_the_server_s_words(dial, local):
    """And the next login waits until it is awake."""
    with dial() as session:
        local.set_fault("suspend", wake=0.1)
        with pytest.raises(errors.AdminShutdown):
            session.execute("SELECT 1")

    with dial() as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert "suspend" not in local.counters()


def test_a_server_that_starts(dial, local):
    """Logins are refused until it serves."""
    local.set_fault("starting", seconds=0)

    assert "starting up" in refused(dial)


def test_cutting_resets_sessions(dial, local):
    """All of them, or those that do nothing."""
    with dial() as busy, dial() as idle:
        busy.execute("SELECT 1")
        idle.execute("SELECT 1")
        timer = threading.Timer(0.2, local.set_fault, ["cut"], {"which": "idle"})
        timer.start()
        busy.execute("SELECT pg_sleep(0.6)")
        timer.join()
        assert busy.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            idle.execute("SELECT 1")
        local.set_fault("cut")
        with pytest.raises(psycopg.OperationalError):
            busy.execute("SELECT 1")


def test_latency_delays_a_round_trip(dial, local):
    """By what it says at least."""
    with local.fault("latency", ms=50), dial() as session:
        started = time.monotonic()
        session.execute("SELECT 1")
        assert time.monotonic() - started >= 0.05


def test_latency_may_end_in_mid_stream(dial, local):
    """No byte overtakes those that are still under way."""
    local.set_fault("latency", ms=200)
    copy = "COPY (SELECT generate_series(1, 1000000)) TO STDOUT"
    with dial() as session, session.cursor().copy(copy) as rows:
        for number, row in enumerate(rows, 1):
            if number == 200000:
                local.clear_faults()
            assert int(bytes(row)) == number


@pytest.mark.parametrize(
    "sent",
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
def test_whatever_a_client_sends_the_gateway_goes_on(dial, local, sent):
    """Garbage ends its own connection and no other."""
    address = local.facts["hostaddr"], local.facts["port"]
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while client.recv(1000):
                pass

    dial().close()
