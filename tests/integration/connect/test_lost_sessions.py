"""Sessions that the server ends while they are idle, and the state that is lost."""

import contextlib
import functools
import logging

import psycopg
import pytest
from django.db import DataError, OperationalError, connection, connections, transaction
from django.db.backends.postgresql.base import Cursor
from django.db.backends.signals import connection_created
from psycopg import sql
from psycopg.pq import TransactionStatus

from django_lakebase import base, events, signals
from django_lakebase.connect.liveness import has_ended
from django_lakebase.exceptions import LakebaseError
from django_lakebase.stats import get_stats
from tests.helpers.queries import fetch_value, wait_for_data
from tests.projects.app.models import Note

POOLS = pytest.mark.parametrize("pool", [False, {"min_size": 1, "max_size": 1}])


def session_pid(wrapper):
    """Return the process id of the server session."""
    return fetch_value(wrapper, "SELECT pg_backend_pid()")


def execute(wrapper, *statements):
    """Run each of *statements*."""
    with wrapper.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


@contextlib.contextmanager
def atomic(wrapper):
    """Enter transaction.atomic() of a wrapper that is not set in the settings."""
    connections[wrapper.alias] = wrapper
    try:
        with transaction.atomic(using=wrapper.alias):
            yield
    finally:
        del connections[wrapper.alias]


def lose(wrapper, local, fault="suspend"):
    """Let the server end the session of *wrapper*, and wait for the closed socket."""
    settings = {"wake_seconds": 0} if fault == "suspend" else {}
    local.set_fault(fault, **settings)
    wait_for_data(wrapper.connection)


@pytest.fixture
def reopened():
    """Return a list of the arguments of each session_reopened signal."""
    heard = []

    def listen(sender, signal, **arguments):
        heard.append(arguments)

    signals.session_reopened.connect(listen)
    yield heard
    signals.session_reopened.disconnect(listen)


@pytest.fixture
def at_connect():
    """Yield a function that runs statements on each new connection."""
    receivers = []

    def run(*statements):
        def receiver(connection, **arguments):
            execute(connection, *statements)

        receivers.append(receiver)
        connection_created.connect(receiver)

    yield run
    for receiver in receivers:
        connection_created.disconnect(receiver)


@pytest.mark.parametrize("fault", ["suspend", "reset-connections"])
@POOLS
def test_session_lost_while_idle_is_reopened(new_wrapper, local, reopened, pool, fault):
    """For commands that never call close_old_connections()."""
    wrapper = new_wrapper("command", OPTIONS={"pool": pool})
    first = session_pid(wrapper)

    for _ in range(2):
        lose(wrapper, local, fault)
        second = session_pid(wrapper)
        assert second != first
        first = second

    assert [heard["alias"] for heard in reopened] == ["command", "command"]


def test_failed_health_check_replaces_a_session_with_state(
    new_wrapper, local, reopened
):
    """As in Django: the state is that of an earlier request."""
    wrapper = new_wrapper("site", CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=True)
    execute(wrapper, "SET search_path = public")
    first = session_pid(wrapper)
    wrapper.close_if_unusable_or_obsolete()
    lose(wrapper, local)

    assert session_pid(wrapper) != first
    assert not reopened


@POOLS
def test_atomic_begins_on_a_reopened_session(new_wrapper, local, reopened, pool):
    """Entering atomic disables autocommit, which opens no cursor."""
    wrapper = new_wrapper("command", OPTIONS={"pool": pool})
    first = session_pid(wrapper)
    lose(wrapper, local)

    with atomic(wrapper):
        assert session_pid(wrapper) != first

    assert len(reopened) == 1


@pytest.mark.django_db(transaction=True)
def test_orm_works_after_scale_to_zero(lakebase, reopened):
    """With a write, a read and a transaction after each suspension."""
    connection.ensure_connection()
    before = get_stats()["default"].sessions_reopened
    for name in ("first", "second"):
        lose(connection, lakebase)
        Note.objects.create(text=name)
        lose(connection, lakebase)
        with transaction.atomic():
            Note.objects.create(text=f"{name} in atomic")

    assert Note.objects.count() == 4
    assert [heard["alias"] for heard in reopened] == ["default"] * 4
    assert get_stats()["default"].sessions_reopened == before + 4


def test_connection_is_reopened_after_a_statement_failed(new_wrapper, local):
    """The server closed it during that statement."""
    wrapper = new_wrapper()
    first = session_pid(wrapper)
    cursor = wrapper.cursor()
    lose(wrapper, local)

    with pytest.raises(OperationalError):
        cursor.execute("SELECT 1")

    assert wrapper.connection.closed
    assert session_pid(wrapper) != first


def test_reopening_is_logged_counted_and_signalled_once(
    new_wrapper, local, reopened, caplog
):
    caplog.set_level(logging.INFO, "django_lakebase")
    wrapper = new_wrapper("observed")
    before = events.get_count("observed", "reopened")
    fetch_value(wrapper, "SELECT 1")
    lose(wrapper, local)
    caplog.clear()

    fetch_value(wrapper, "SELECT 1")

    [record] = caplog.records
    assert (record.levelname, record.lakebase_alias) == ("INFO", "observed")
    assert record.lakebase_endpoint == local.env["ENDPOINT_NAME"]
    [heard] = reopened
    assert heard["alias"] == "observed"
    assert heard["endpoint"] == local.env["ENDPOINT_NAME"]
    assert heard["seconds"] > 0
    assert events.get_count("observed", "reopened") == before + 1


def test_healthy_idle_session_costs_no_query(new_wrapper, monkeypatch):
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")
    monkeypatch.setattr(base, "has_ended", pytest.fail)

    assert fetch_value(wrapper, "SELECT 2") == 2


@POOLS
def test_lost_session_with_reconnect_off_fails_as_in_django(
    new_wrapper, local, reopened, pool
):
    wrapper = new_wrapper(OPTIONS={"pool": pool, "reconnect": False})
    first = session_pid(wrapper)
    lose(wrapper, local)

    with pytest.raises(OperationalError, match="terminating connection"):
        fetch_value(wrapper, "SELECT 1")
    for _ in range(2):
        with pytest.raises(OperationalError, match="connection is closed"):
            fetch_value(wrapper, "SELECT 1")

    assert reopened == []
    wrapper.close()
    assert session_pid(wrapper) != first


@POOLS
def test_session_is_not_reopened_inside_atomic(new_wrapper, local, reopened, pool):
    """Its locks and writes are lost: each statement fails, and so does the block."""
    wrapper = new_wrapper(OPTIONS={"pool": pool})
    first = session_pid(wrapper)

    def lose_inside_atomic():
        with atomic(wrapper):
            fetch_value(wrapper, "SELECT 1")
            lose(wrapper, local)
            for _ in range(2):
                with pytest.raises(OperationalError) as caught:
                    wrapper.cursor().execute("SELECT 1")
                assert not isinstance(caught.value, LakebaseError)

    with pytest.raises(OperationalError):
        lose_inside_atomic()

    assert reopened == []
    assert session_pid(wrapper) != first


def test_session_is_not_reopened_while_autocommit_is_off(new_wrapper, local, reopened):
    wrapper = new_wrapper()
    wrapper.ensure_connection()
    wrapper.set_autocommit(False)
    fetch_value(wrapper, "SELECT 1")
    lose(wrapper, local)

    for _ in range(2):
        with pytest.raises(OperationalError):
            fetch_value(wrapper, "SELECT 1")

    assert reopened == []


# The statement, and its name in the error.
STATE = {
    "advisory lock": ("SELECT pg_advisory_lock(7)", "an advisory lock"),
    "advisory lock by try": ("select PG_TRY_ADVISORY_LOCK(7)", "an advisory lock"),
    "shared advisory lock": ("SELECT pg_advisory_lock_shared(7)", "an advisory lock"),
    "role": ("SET ROLE none", "SET"),
    "read-only default": ("SET default_transaction_read_only = on", "SET"),
    "commented setting": ("/* the\ntenant **/ SET app.tenant = '1'", "SET"),
    "reset": ("RESET TIMEZONE", "RESET"),
    "tenant": ("SELECT set_config('app.tenant', '1', false)", "set_config"),
    "listen": ("LISTEN news", "LISTEN"),
    "begin": ("BEGIN", "a transaction"),
    "start transaction": ("START TRANSACTION READ ONLY", "a transaction"),
    "temporary table": ("CREATE TEMPORARY TABLE t (i int)", "a temporary table"),
    "temporary view": ("create or replace temp view v as select 1", "a temporary"),
    "into": ("SELECT 1 AS i INTO TEMP t", "a temporary table"),
    "prepared statement": ("PREPARE p AS SELECT 1", "PREPARE"),
    "cursor": ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "DECLARE"),
    "block": ("DO $$ BEGIN SET app.tenant = '1'; END $$", "DO"),
    "several": ("SELECT 1; -- then\n/* a\n* b */ SET app.tenant = '1';", "SET"),
    "several with begin": ("SELECT 1; BEGIN; SELECT 2", "a transaction"),
    "composed": (
        sql.SQL("SELECT {}(7)").format(sql.Identifier("pg_advisory_lock")),
        "an advisory lock",
    ),
    "bytes": (b"LISTEN news", "LISTEN"),
}


@pytest.mark.parametrize(("statement", "name"), STATE.values(), ids=STATE)
def test_lost_session_state_is_an_error_until_close(
    new_wrapper, local, reopened, statement, name
):
    """The program would otherwise continue without its lock, role or tenant."""
    wrapper = new_wrapper("command", NAME="postgres")
    first = session_pid(wrapper)
    execute(wrapper, statement)
    lose(wrapper, local)
    if wrapper.connection.info.transaction_status != TransactionStatus.IDLE:
        # In a transaction the statement fails, and the program ignores the error.
        with pytest.raises(OperationalError, match="terminating connection"):
            execute(wrapper, "SELECT 1")

    for _ in range(2):
        with pytest.raises(LakebaseError, match=name) as caught:
            fetch_value(wrapper, "SELECT 1")
        assert caught.value.failure_id == "session-lost"
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    with pytest.raises(LakebaseError, match=name), atomic(wrapper):
        pytest.fail("atomic must not begin")

    assert reopened == []
    wrapper.close_if_unusable_or_obsolete()
    assert session_pid(wrapper) != first


@POOLS
def test_lost_session_state_is_an_error_with_a_pool(new_wrapper, local, pool):
    """The next borrower of the connection is not affected."""
    wrapper = new_wrapper("command", OPTIONS={"pool": pool})
    execute(wrapper, "LISTEN news")
    wrapper.close()
    first = session_pid(wrapper)
    lose(wrapper, local)
    assert session_pid(wrapper) != first

    execute(wrapper, "LISTEN news")
    lose(wrapper, local)
    with pytest.raises(LakebaseError, match="LISTEN"):
        fetch_value(wrapper, "SELECT 1")


def test_error_lists_all_lost_state_in_order(new_wrapper, local):
    wrapper = new_wrapper("command")
    execute(wrapper, "SELECT pg_advisory_lock(7)", "SET app.tenant = '1'", "LISTEN a")
    lose(wrapper, local)

    with pytest.raises(LakebaseError, match="an advisory lock, SET, LISTEN"):
        fetch_value(wrapper, "SELECT 1")


PASSING = {
    "transaction's advisory lock": "SELECT pg_advisory_xact_lock(7)",
    "transaction's setting": "/* a */ SET LOCAL app.tenant = '1'",
    "transaction's config": "SELECT set_config('app.tenant', %s, true)",
    "transaction's characteristics": "SET TRANSACTION READ ONLY",
    "constraints": "SET CONSTRAINTS ALL DEFERRED",
    "words": "SELECT 'temperature' AS temp, 'template'",
    "semicolon": "SELECT 1;",
    "several": "SELECT 1; SET LOCAL app.tenant = '1'",
}


@pytest.mark.parametrize("statement", PASSING.values(), ids=PASSING)
def test_state_of_a_transaction_does_not_prevent_reopening(
    new_wrapper, local, reopened, statement
):
    """The session is not reopened inside atomic."""
    wrapper = new_wrapper()
    first = session_pid(wrapper)
    with atomic(wrapper), wrapper.cursor() as cursor:
        cursor.execute(statement, ["1"] if "%s" in statement else None)
    lose(wrapper, local)

    assert session_pid(wrapper) != first
    assert len(reopened) == 1


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "SELECT 1; COMMIT"])
def test_ended_explicit_transaction_does_not_prevent_reopening(
    new_wrapper, local, reopened, end
):
    wrapper = new_wrapper()
    execute(wrapper, "BEGIN", "SELECT 1", end)
    lose(wrapper, local)

    fetch_value(wrapper, "SELECT 1")

    assert len(reopened) == 1


def test_failed_begin_is_a_lost_transaction(new_wrapper, local):
    """On a new session the next statements would be committed immediately."""
    wrapper = new_wrapper()
    cursor = wrapper.cursor()
    lose(wrapper, local)
    with contextlib.suppress(OperationalError):
        cursor.execute("BEGIN")

    with pytest.raises(LakebaseError, match="a transaction"):
        fetch_value(wrapper, "SELECT 1")


def test_psycopg_transaction_prevents_reopening(new_wrapper, local):
    """No cursor sends its BEGIN."""
    wrapper = new_wrapper()
    wrapper.ensure_connection()

    with wrapper.connection.transaction():
        fetch_value(wrapper, "SELECT 1")
        lose(wrapper, local)
        with pytest.raises(OperationalError, match="terminating connection"):
            fetch_value(wrapper, "SELECT 1")
        with pytest.raises(LakebaseError, match="a transaction"):
            fetch_value(wrapper, "SELECT 1")


def test_read_only_attribute_of_the_connection_prevents_reopening(new_wrapper, local):
    """Psycopg sends it with each BEGIN."""
    wrapper = new_wrapper()
    wrapper.ensure_connection()
    wrapper.connection.read_only = True
    lose(wrapper, local)

    with pytest.raises(LakebaseError, match="attributes of the connection"):
        fetch_value(wrapper, "SELECT 1")


def test_failed_statement_that_took_a_session_lock_prevents_reopening(
    new_wrapper, local
):
    """The advisory lock of a session outlives the error."""
    wrapper = new_wrapper()
    with pytest.raises(DataError):
        execute(
            wrapper,
            "SELECT pg_advisory_lock(7), 1 / (pg_backend_pid() - pid) "
            "FROM pg_stat_activity WHERE pid = pg_backend_pid()",
        )
    lose(wrapper, local)

    with pytest.raises(LakebaseError, match="an advisory lock"):
        fetch_value(wrapper, "SELECT 1")


# Ways to run a statement that changes the session.


def _by_raw_connection(wrapper):
    wrapper.connection.execute("LISTEN news")


def _by_raw_cursor(wrapper):
    with wrapper.connection.cursor() as cursor:
        cursor.execute("LISTEN news")


def _by_many(wrapper):
    with wrapper.cursor() as cursor:
        cursor.executemany("SELECT pg_advisory_lock(%s)", [(1,), (2,)])


def _by_stream(wrapper):
    with wrapper.cursor() as cursor:
        assert list(cursor.stream("SELECT set_config('app.tenant', '1', false)"))


def _by_abandoned_stream(wrapper):
    with wrapper.connection.cursor() as cursor:
        rows = cursor.stream("SELECT pg_advisory_lock(7) FROM generate_series(1, 9)")
        next(rows)
        rows.close()


def _by_stream_without_rows(wrapper):
    """Psycopg raises, but only after the server has run the statement."""
    with wrapper.connection.cursor() as cursor, pytest.raises(psycopg.ProgrammingError):
        list(cursor.stream("SET app.tenant = '1'"))


def _by_copy(wrapper):
    with (
        wrapper.cursor() as cursor,
        cursor.copy("COPY (SELECT pg_advisory_lock(7)) TO STDOUT") as copy,
    ):
        assert list(copy)


def _by_copy_of_nothing(wrapper):
    """Psycopg raises, but only after the server has run the statement."""
    with (
        wrapper.connection.cursor() as cursor,
        pytest.raises(psycopg.ProgrammingError),
        cursor.copy("SET app.tenant = '1'"),
    ):
        pytest.fail("copy() must not begin")


def _by_pipeline(wrapper):
    with wrapper.connection.pipeline(), wrapper.connection.cursor() as cursor:
        cursor.execute("SET app.tenant = '1'")


def _by_procedure(wrapper):
    with wrapper.cursor() as cursor:
        cursor.callproc("pg_advisory_lock", [7])


def _by_server_side_cursor(wrapper):
    with wrapper.chunked_cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(7)")
        cursor.fetchall()


def _by_raw_server_side_cursor(wrapper):
    with wrapper.connection.cursor("own", withhold=True) as cursor:
        cursor.execute("SELECT pg_advisory_lock(7)")


def _by_debug_cursor(wrapper):
    wrapper.force_debug_cursor = True
    execute(wrapper, "SET app.tenant = '1'")


WAYS = [
    _by_raw_connection,
    _by_raw_cursor,
    _by_many,
    _by_stream,
    _by_abandoned_stream,
    _by_stream_without_rows,
    _by_copy,
    _by_copy_of_nothing,
    _by_pipeline,
    _by_procedure,
    _by_server_side_cursor,
    _by_raw_server_side_cursor,
    _by_debug_cursor,
]


class OwnCursor(Cursor):
    """A cursor class of the project."""


FACTORIES = {
    "client": {},
    "server": {"server_side_binding": True},
    "own": {"cursor_factory": OwnCursor},
    "slots": {"cursor_factory": psycopg.ClientCursor},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", FACTORIES.values(), ids=FACTORIES)
def test_session_state_is_tracked_through_each_kind_of_cursor(
    new_wrapper, local, way, options
):
    if way is _by_procedure and options.get("cursor_factory") is psycopg.ClientCursor:
        pytest.skip("it has no callproc")
    wrapper = new_wrapper(OPTIONS=options)
    wrapper.ensure_connection()
    way(wrapper)
    lose(wrapper, local)

    with pytest.raises(LakebaseError) as caught:
        fetch_value(wrapper, "SELECT 1")
    assert caught.value.failure_id == "session-lost"


@pytest.mark.parametrize("options", FACTORIES.values(), ids=FACTORIES)
def test_closed_server_side_cursor_does_not_prevent_reopening(
    new_wrapper, local, reopened, options
):
    """A finished loop over iterator() holds nothing."""
    wrapper = new_wrapper(OPTIONS=options)
    with wrapper.chunked_cursor() as cursor:
        cursor.execute("SELECT 1 UNION SELECT 2")
        assert len(cursor.fetchall()) == 2
    lose(wrapper, local)

    fetch_value(wrapper, "SELECT 1")

    assert len(reopened) == 1


def test_cursor_factory_equals_the_class_of_the_project(new_wrapper):
    """Code that compares them finds its own class."""
    wrapper = new_wrapper(OPTIONS={"cursor_factory": OwnCursor})
    wrapper.ensure_connection()
    factory = wrapper.connection.cursor_factory

    assert factory == OwnCursor
    assert OwnCursor == factory
    assert hash(factory) == hash(OwnCursor)
    assert factory != Cursor
    assert issubclass(factory, OwnCursor)
    assert repr(factory) == repr(OwnCursor)
    further = type("Further", (factory,), {})
    assert further != OwnCursor
    assert {further: 1}[further] == 1


def test_session_with_a_cursor_factory_function_is_not_reopened(
    new_wrapper, local, reopened
):
    """The engine cannot track what such cursors do."""
    factory = functools.partial(Cursor)
    wrapper = new_wrapper(OPTIONS={"cursor_factory": factory})
    session_pid(wrapper)
    lose(wrapper, local)

    with pytest.raises(OperationalError, match="terminating connection"):
        fetch_value(wrapper, "SELECT 1")
    with pytest.raises(OperationalError, match="connection is closed"):
        fetch_value(wrapper, "SELECT 1")

    assert reopened == []


@POOLS
def test_state_set_by_connection_created_is_restored(
    new_wrapper, local, reopened, at_connect, pool
):
    at_connect("SET app.tenant = '1'", "SELECT pg_advisory_lock_shared(7)")
    wrapper = new_wrapper("command", OPTIONS={"pool": pool})
    first = session_pid(wrapper)
    lose(wrapper, local)

    assert fetch_value(wrapper, "SHOW app.tenant") == "1"

    assert session_pid(wrapper) != first
    assert len(reopened) == 1


@POOLS
def test_state_set_by_django_is_restored(new_wrapper, local, reopened, pool):
    """The role, time zone and isolation level."""
    role = local.facts["service_principal"]
    options = {
        "pool": pool,
        "assume_role": role,
        "isolation_level": psycopg.IsolationLevel.SERIALIZABLE,
    }
    wrapper = new_wrapper("command", TIME_ZONE="Europe/Paris", OPTIONS=options)
    first = session_pid(wrapper)
    lose(wrapper, local)

    assert session_pid(wrapper) != first
    assert fetch_value(wrapper, "SELECT current_user") == role
    assert fetch_value(wrapper, "SHOW TimeZone") == "Europe/Paris"
    with atomic(wrapper):
        assert fetch_value(wrapper, "SHOW transaction_isolation") == "serializable"
    assert len(reopened) == 1


def test_waiting_notification_costs_one_round_trip_and_is_kept(
    new_wrapper, reopened, monkeypatch
):
    """A readable socket does not prove that the session is lost."""
    listener, speaker = new_wrapper(), new_wrapper("speaker")
    execute(listener, "LISTEN news")
    first = listener.connection
    asked = []

    def ask(connection):
        asked.append(connection)
        return has_ended(connection)

    monkeypatch.setattr(base, "has_ended", ask)
    fetch_value(speaker, "SELECT pg_notify('news', 'hello')::text")
    wait_for_data(listener.connection)

    fetch_value(listener, "SELECT 1")
    fetch_value(listener, "SELECT 1")

    assert asked == [first]
    assert listener.connection is first
    [notice] = first.notifies(timeout=5, stop_after=1)
    assert notice.payload == "hello"
    assert reopened == []
