"""PostgreSQL features after the login, when the gateway only forwards bytes."""

import contextlib
import os
import threading
from pathlib import Path

import psycopg
import pytest

IDLE_SESSIONS = 500


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_gateway_accepts_tls_version(connect, version):
    params = {"ssl_min_protocol_version": version, "ssl_max_protocol_version": version}
    with connect(**params) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_gateway_rejects_tls_1_1(connect):
    params = {
        "ssl_min_protocol_version": "TLSv1.1",
        "ssl_max_protocol_version": "TLSv1.1",
    }
    with pytest.raises(psycopg.OperationalError, match="SSL error"):
        connect(**params)


def test_session_survives_a_statement_timeout(connect):
    with connect() as session:
        session.execute("SET statement_timeout = 500")
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("SELECT pg_sleep(20)")
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_notification_reaches_an_idle_session(connect):
    with connect() as listener, connect() as sender:
        listener.execute("LISTEN news")
        sender.execute("SELECT pg_notify('news', 'hello')")
        [notification] = listener.notifies(timeout=60, stop_after=1)

    assert notification.payload == "hello"


def test_pipeline_mode_returns_results_in_order(connect):
    with connect() as session, session.pipeline():
        cursors = [session.execute("SELECT %s", (n,)) for n in range(500)]
        numbers = [cursor.fetchone()[0] for cursor in cursors]

    assert numbers == list(range(500))


def test_large_object_is_read_back_unchanged(connect):
    data = os.urandom(300_000)
    with connect() as session, session.transaction():
        [oid] = session.execute("SELECT lo_from_bytea(0, %s)", (data,)).fetchone()
        [read_back] = session.execute("SELECT lo_get(%s)", (oid,)).fetchone()
        session.execute("SELECT lo_unlink(%s)", (oid,))

    assert read_back == data


def test_server_side_cursors_and_prepared_statements_work(connect):
    with connect() as session, session.transaction():
        with session.cursor("numbers") as cursor:
            cursor.execute("SELECT generate_series(1, 1000)")
            assert len(cursor.fetchall()) == 1000
        for number in range(10):
            session.execute("SELECT %s::int", (number,), prepare=True)


def test_login_succeeds_while_500_sessions_are_idle(connect, local):
    with contextlib.ExitStack() as stack:
        lock = threading.Lock()
        remaining = list(range(IDLE_SESSIONS))
        password = local.issue_token(local.facts["service_principal"])

        def open_sessions():
            while remaining:
                remaining.pop()
                session = connect(password=password, connect_timeout=60)
                with lock:
                    stack.enter_context(session)

        threads = [threading.Thread(target=open_sessions) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with connect() as session:
            [count] = session.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user"
            ).fetchone()

    assert count > IDLE_SESSIONS


@pytest.mark.skipif(not Path("/proc").exists(), reason="memory is read from /proc")
def test_emulator_memory_stays_flat_while_200_mb_pass_each_way(connect, local):
    pid = local.facts["pid"]

    def get_resident_megabytes():
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    block = b"x" * 99 + b"\n"
    with connect() as session:
        session.execute("CREATE TEMP TABLE bulk (line text)")
        before = get_resident_megabytes()
        with session.cursor().copy("COPY bulk FROM STDIN") as rows:
            for _ in range(200):
                rows.write(block * 10000)
        out = "COPY (SELECT repeat('x', 99) FROM generate_series(1, 2000000)) TO STDOUT"
        with session.cursor().copy(out) as rows:
            for _ in rows:
                pass

    assert get_resident_megabytes() - before < 30
