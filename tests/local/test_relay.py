"""What passes after the login: the gateway only moves bytes, so all of it does."""

import contextlib
import os
import threading
from pathlib import Path

import psycopg
import pytest

IDLE = 500


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_both_versions_of_tls(dial, version):
    """Older ones are refused."""
    params = {"ssl_min_protocol_version": version, "ssl_max_protocol_version": version}
    with dial(**params) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_tls_that_is_too_old(dial):
    """Nobody agrees to it."""
    params = {
        "ssl_min_protocol_version": "TLSv1.1",
        "ssl_max_protocol_version": "TLSv1.1",
    }
    with pytest.raises(psycopg.OperationalError, match="SSL error"):
        dial(**params)


def test_a_statement_timeout(dial):
    """PostgreSQL cancels by itself, and the session goes on."""
    with dial() as session:
        session.execute("SET statement_timeout = 500")
        with pytest.raises(psycopg.errors.QueryCanceled):
            session.execute("SELECT pg_sleep(20)")
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_notifications(dial):
    """From one session to another, without a question."""
    with dial() as listener, dial() as speaker:
        listener.execute("LISTEN news")
        speaker.execute("SELECT pg_notify('news', 'hello')")
        [heard] = listener.notifies(timeout=60, stop_after=1)

    assert heard.payload == "hello"


def test_the_pipeline_mode(dial):
    """Many statements ahead of their answers."""
    with dial() as session, session.pipeline():
        cursors = [session.execute("SELECT %s", (n,)) for n in range(500)]
        found = [cursor.fetchone()[0] for cursor in cursors]

    assert found == list(range(500))


def test_large_objects(dial):
    """In and out again."""
    data = os.urandom(300_000)
    with dial() as session, session.transaction():
        [oid] = session.execute("SELECT lo_from_bytea(0, %s)", (data,)).fetchone()
        [back] = session.execute("SELECT lo_get(%s)", (oid,)).fetchone()
        session.execute("SELECT lo_unlink(%s)", (oid,))

    assert back == data


def test_prepared_statements_and_cursors(dial):
    """Of one session, as on any server."""
    with dial() as session, session.transaction():
        with session.cursor("served") as cursor:
            cursor.execute("SELECT generate_series(1, 1000)")
            assert len(cursor.fetchall()) == 1000
        for number in range(10):
            session.execute("SELECT %s::int", (number,), prepare=True)


def test_many_idle_sessions(dial, local):
    """Five hundred, and one that works."""
    with contextlib.ExitStack() as stack:
        lock = threading.Lock()
        left = list(range(IDLE))
        password = local.issue(local.facts["service_principal"])

        def fill():
            while left:
                left.pop()
                session = dial(password=password, connect_timeout=60)
                with lock:
                    stack.enter_context(session)

        threads = [threading.Thread(target=fill) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with dial() as session:
            [count] = session.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = current_user"
            ).fetchone()

    assert count > IDLE


@pytest.mark.skipif(not Path("/proc").exists(), reason="memory is read from /proc")
def test_memory_is_flat(dial, local):
    """However much passes, in either direction."""
    process = local.facts["pid"]

    def megabytes():
        status = Path(f"/proc/{process}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    block = b"x" * 99 + b"\n"
    with dial() as session:
        session.execute("CREATE TEMP TABLE taken (line text)")
        before = megabytes()
        with session.cursor().copy("COPY taken FROM STDIN") as rows:
            for _ in range(200):
                rows.write(block * 10000)
        out = "COPY (SELECT repeat('x', 99) FROM generate_series(1, 2000000)) TO STDOUT"
        with session.cursor().copy(out) as rows:
            for _ in rows:
                pass

    assert megabytes() - before < 30
