"""The command lakebase_migrate: the lock, processes that start together, and errors."""

import contextlib
import io
import sys
import time
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, transaction
from django.db.models.signals import post_migrate, pre_migrate

from django_lakebase.management import migration_lock, wait
from django_lakebase.management.commands import lakebase_migrate
from django_lakebase.management.migration_lock import MigrationLock
from tests.helpers.app_servers import started, wait_until
from tests.helpers.plain_psycopg import new_database, open_session
from tests.helpers.queries import fetch_value

COMMAND = [sys.executable, "-m", "django", "lakebase_migrate"]
GATE = "SELECT pg_advisory_lock(1)"
APPLIED = "SELECT name FROM django_migrations WHERE app = %s ORDER BY name"
MIGRATIONS = ["0001_initial", "0002_gate", "0003_index", "0004_order", "0005_note"]
ALL = [*MIGRATIONS, "0005_squashed"]


@pytest.fixture
def database(local):
    """Yield the name of a new database."""
    with new_database(local) as name:
        yield name
        local.clear_faults()


@pytest.fixture
def session(local, database):
    """Yield a session on the new database that does not use the engine."""
    with open_session(local, dbname=database) as session:
        yield session


@pytest.fixture
def start(database):
    """Yield a function that runs the command in a new process."""
    with contextlib.ExitStack() as stack:

        def run(*arguments):
            return stack.enter_context(
                started(
                    [*COMMAND, *arguments],
                    DJANGO_SETTINGS_MODULE="tests.projects.deploy.settings",
                    PGDATABASE=database,
                )
            )

        yield run


@pytest.fixture
def connect(new_wrapper, database):
    """Yield a function that adds a connection to the database as the alias "other"."""

    def new(**settings):
        connections["other"] = wrapper = new_wrapper(
            **{"NAME": database, "CONN_MAX_AGE": None, **settings}
        )
        return wrapper

    yield new
    with contextlib.suppress(AttributeError):
        del connections["other"]


@pytest.fixture
def migrate(connect):
    """Yield a function that runs the command in this process; returns its output."""

    def run(wrapper=None, *arguments, **options):
        out = io.StringIO()
        wrapper or connect()
        call_command(
            "lakebase_migrate", *arguments, database="other", stdout=out, **options
        )
        return out.getvalue()

    return run


@pytest.fixture
def on_signal():
    """Yield a function that connects a function to a signal for the test."""
    connected = []

    def connect(signal, function):
        def receiver(using, **arguments):
            function(connections[using])

        connected.append((signal, receiver))
        signal.connect(receiver)

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


@pytest.fixture
def hold(new_wrapper, database):
    """Yield a function that takes the lock of the command; call the result to end."""

    def take(**settings):
        wrapper = new_wrapper("holder", NAME=database, **settings)
        lock = MigrationLock(wrapper, 0)
        lock.acquire(wrapper.ensure_connection, pytest.fail)
        return lock.release

    return take


def applied(session, app="deploy"):
    """Return the recorded migrations of *app*."""
    return [name for (name,) in session.execute(APPLIED, [app])]


def processes(session):
    """Return the server's process ids of the sessions of the command."""
    rows = session.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'tests %%' AND pid <> %s",
        [session.info.backend_pid],
    )
    return [pid for (pid,) in rows]


def wait_for_blocked(session):
    """Wait until a session of the database waits for a lock."""
    blocked = (
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
        "AND cardinality(pg_blocking_pids(pid)) > 0"
    )
    wait_until(lambda: session.execute(blocked).fetchone())


def test_one_of_ten_processes_migrates_on_a_suspended_endpoint(start, local, database):
    local.set_fault("suspend", wake_seconds=1)
    programs = [start("--wait", "120") for _ in range(10)]

    assert [program.wait(120) for program in programs] == [0] * 10
    outputs = [program.output for program in programs]
    assert sum("Applying deploy.0001_initial" in output for output in outputs) == 1
    assert sum("Running migrations:" in output for output in outputs) == 1
    assert sum("No migrations to apply." in output for output in outputs) == 9
    with open_session(local, dbname=database) as session:
        assert applied(session) == ALL


def test_process_takes_over_from_a_killed_holder(start, session):
    """Even if the server is executing a statement of the holder."""
    session.execute(GATE)
    holder = start()
    wait_for_blocked(session)
    [killed] = processes(session)
    other = start()
    [who] = other.wait_for("waiting for another process that runs migrations: (.*)")
    assert f"session {killed}, " in who
    assert 'application "tests (django_lakebase)"' in who
    holder.kill()
    wait_until(lambda: killed not in processes(session))
    session.execute("SELECT pg_advisory_unlock(1)")

    assert other.wait() == 0
    assert "Applying deploy.0001" not in other.output
    assert applied(session) == ALL


def test_concurrent_index_does_not_wait_for_processes_that_wait(start, session):
    """A blocking lock has a snapshot, for which the index would wait: a deadlock."""
    assert start("deploy", "0002").wait() == 0
    with session.transaction():
        session.execute("INSERT INTO deploy_item (name) VALUES ('x')")
        programs = [start() for _ in range(3)]
        wait_until(
            lambda: sum("waiting for another" in p.output for p in programs) == 2
        )
        wait_for_blocked(session)

    assert [program.wait(60) for program in programs] == [0, 0, 0]
    assert applied(session) == ALL


def test_process_that_waits_survives_the_end_of_its_session(start, session, hold):
    """A restart of the server ends all sessions."""
    release = hold()
    program = start()
    program.wait_for("(waiting for another)")
    for pid in processes(session):
        session.execute("SELECT pg_terminate_backend(%s)", [pid])
    release()

    assert program.wait() == 0
    assert applied(session) == ALL


def test_lost_session_of_the_holder_fails_with_a_reason(start, session):
    session.execute(GATE)
    program = start()
    wait_for_blocked(session)
    [pid] = processes(session)
    session.execute("SELECT pg_terminate_backend(%s)", [pid])

    assert program.wait() == 1
    assert 'DATABASES["default"]: the session that ran the migrations' in program.output
    assert "Traceback" not in program.output
    assert applied(session) == ["0001_initial"]


def test_closed_connection_ends_the_run_before_the_next_migration(
    migrate, on_signal, session
):
    """A new session would not have the lock."""
    on_signal(pre_migrate, lambda connection: connection.close())

    with pytest.raises(CommandError, match="the session that ran the migrations"):
        migrate()
    assert applied(session, "contenttypes") == []


def test_close_old_connections_keeps_the_session(migrate, connect, on_signal):
    """Data migrations call it in loops; CONN_MAX_AGE is 0 by default."""
    on_signal(pre_migrate, lambda wrapper: wrapper.close_if_unusable_or_obsolete())

    out = migrate(connect(CONN_MAX_AGE=0))

    assert "Applying contenttypes.0001_initial... OK" in out


def test_nothing_pending_needs_no_lock(migrate, monkeypatch):
    migrate()
    monkeypatch.delattr(MigrationLock, "acquire")

    assert migrate() == "No migrations to apply.\n"
    assert migrate(None, verbosity=0) == ""


def test_plan_and_check_need_no_lock(migrate, monkeypatch, session):
    monkeypatch.delattr(MigrationLock, "acquire")

    assert "Planned operations" in migrate(plan=True)
    with pytest.raises(SystemExit):
        migrate(check_unapplied=True)
    assert not session.execute("SELECT to_regclass('django_migrations')").fetchone()[0]


def test_squashed_migration_is_recorded_when_all_else_is_applied(start, session):
    """Its replaced migrations can be deleted only after it is recorded."""
    assert start().wait() == 0
    session.execute("DELETE FROM django_migrations WHERE name = '0005_squashed'")

    assert start().wait() == 0
    assert applied(session) == ALL


def test_post_migrate_runs_again_after_a_run_that_did_not_finish_it(
    migrate, on_signal, session
):
    """All migrations are recorded by then."""
    calls = []

    def fail_once(connection):
        calls.append(connection)
        if len(calls) == 1:
            raise RuntimeError("killed")

    on_signal(post_migrate, fail_once)
    with pytest.raises(RuntimeError):
        migrate()
    before, first = len(calls), applied(session, "lakebase_migrate")
    migrate()
    after = len(calls)
    migrate()

    assert first == ["post_migrate"]
    assert applied(session, "lakebase_migrate") == []
    assert before < after == len(calls)


@pytest.mark.parametrize("pool", [False, {"min_size": 1, "max_size": 1}])
def test_session_has_no_timeout_and_later_sessions_have_theirs(
    migrate, connect, on_signal, session, pool
):
    def show(connection):
        return tuple(
            fetch_value(connection, f"SHOW {name}")
            for name in ("statement_timeout", "lock_timeout")
        )

    settings = {"options": "-c statement_timeout=7s -c lock_timeout=8s", "pool": pool}
    shown = []
    on_signal(pre_migrate, lambda connection: shown.append(show(connection)))
    wrapper = connect(OPTIONS=settings, CONN_MAX_AGE=0)

    migrate(wrapper, lock_timeout=3)

    assert set(shown) == {("0", "3s")}
    assert show(wrapper) == ("7s", "8s")
    locks = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
    # The server ends a session a moment after its client.
    wait_until(lambda: not session.execute(locks).fetchone())


def test_lock_timeout_rolls_back_and_tries_again(start, session):
    """The statement for the foreign key fails, which Django executes last."""
    assert start("deploy", "0003").wait() == 0
    with session.transaction():
        session.execute("INSERT INTO deploy_item (name) VALUES ('x')")
        program = start("--lock-timeout", "0.2")
        [line] = program.wait_for("(.*did not get a lock within 0.2 s.*)")
        program.wait_for("(Trying again)", times=2)

    assert program.wait() == 0
    assert 'The migration "deploy.0004_order"' in line
    assert f"session {session.info.backend_pid}, " in line
    assert "uses deploy_item" in line
    assert applied(session) == ALL


def test_lock_timeout_gives_up_after_a_time(migrate, session, monkeypatch):
    clock = SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda _: pytest.fail("slept")
    )
    monkeypatch.setattr(lakebase_migrate, "time", clock)
    monkeypatch.setattr(lakebase_migrate, "RETRIED_FOR", 0.0)
    migrate(None, "contenttypes", "0001")
    with session.transaction():
        session.execute("LOCK TABLE django_content_type IN ACCESS SHARE MODE")
        with pytest.raises(CommandError) as caught:
            migrate(lock_timeout=0.05)

    assert 'DATABASES["other"]: The migration "contenttypes.0002' in str(caught.value)
    assert "The command has retried for 0 s." in str(caught.value)
    assert "uses django_content_type" in str(caught.value)


def test_lock_timeout_of_a_non_atomic_migration_is_not_tried_again(start, session):
    assert start("deploy", "0002").wait() == 0
    with session.transaction():
        session.execute("INSERT INTO deploy_item (name) VALUES ('x')")
        program = start("--lock-timeout", "0.2")
        assert program.wait() == 1

    assert "The migration is not atomic" in program.output
    assert "Trying again" not in program.output
    assert "Traceback" not in program.output


def test_wait_covers_the_system_checks(start, local):
    """The checks of the constraint of Item connect, for the server's version."""
    local.set_fault("api-5xx")
    program = start("--wait", "100")
    program.wait_for("(Retrying for another)")
    local.clear_faults()

    assert program.wait(60) == 0


def test_wait_repeats_temporary_failures(migrate, connect, local, monkeypatch):
    clock = SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda _: local.clear_faults()
    )
    monkeypatch.setattr(wait, "time", clock)
    wrapper = connect(OPTIONS={"connect_budget": 1})
    local.set_fault("api-5xx")

    out = migrate(wrapper, wait=30)

    assert "Retrying for another" in out


def test_wait_does_not_repeat_permanent_failures(migrate, local, monkeypatch):
    clock = SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda _: pytest.fail("slept")
    )
    monkeypatch.setattr(wait, "time", clock)

    with (
        local.fault("secret-revoked"),
        pytest.raises(CommandError, match=r'DATABASES\["other"\].*DATABRICKS_CLIENT'),
    ):
        migrate(wait=600)


def test_hint_of_schema_denied_works(local, connect, migrate):
    owner, role = local.facts["owner"], local.facts["service_principal"]
    with new_database(local, user=owner) as name:
        with pytest.raises(CommandError) as caught:
            migrate(connect(NAME=name))
        text = str(caught.value)
        assert text.startswith(f'DATABASES["other"]: "{role}" is not allowed')
        assert 'set OPTIONS["schema"] (LAKEBASE_SCHEMA) to auto' in text
        with open_session(local, user=owner, dbname=name) as session:
            session.execute(text[text.index("GRANT") :])
        assert "Applying contenttypes.0001_initial... OK" in migrate(connect(NAME=name))


def test_key_is_the_same_before_and_after_the_schema_exists(hold, connect, session):
    settings = {"OPTIONS": {"options": "-c search_path=late,public"}}
    hold(**settings)
    session.execute("CREATE SCHEMA late")
    wrapper = connect(**settings)
    reports = []

    def stop(holder):
        reports.append(holder)
        raise StopIteration

    with pytest.raises(StopIteration):
        MigrationLock(wrapper, 0).acquire(wrapper.ensure_connection, stop)
    assert reports


def test_another_schema_has_another_lock(hold, connect):
    hold()
    wrapper = connect(OPTIONS={"options": "-c search_path=app"})

    MigrationLock(wrapper, 0).acquire(wrapper.ensure_connection, pytest.fail)

    assert wrapper.is_usable()


def test_djangos_own_engine_migrates_under_the_same_lock(
    migrate, connect, local, database, monkeypatch
):
    """A project may use another PostgreSQL in development."""
    monkeypatch.setattr(migration_lock, "POLL_INTERVAL", 0.0)
    facts = local.facts
    with open_session(local, dbname=database) as session:
        session.execute(f'GRANT CREATE ON SCHEMA public TO "{facts["native_user"]}"')
    wrapper = connect(
        ENGINE="django.db.backends.postgresql",
        HOST=facts["host"],
        PORT=facts["port"],
        USER=facts["native_user"],
        PASSWORD=facts["native_password"],
        OPTIONS={"hostaddr": facts["hostaddr"], "sslmode": "require"},
    )

    assert "Applying contenttypes.0001_initial... OK" in migrate(wrapper)
    assert migrate(wrapper) == "No migrations to apply.\n"
    wrapper.settings_dict["PASSWORD"] = "wrong"
    wrapper.close()
    with pytest.raises(CommandError, match=r'DATABASES\["other"\]: .*password'):
        migrate(wrapper)


def test_sqlite_and_poolers_and_transactions_are_rejected(migrate, connect):
    with pytest.raises(CommandError, match=r'uses the ENGINE ".*sqlite3"'):
        migrate(connect(ENGINE="django.db.backends.sqlite3", NAME=":memory:"))
    with pytest.raises(CommandError, match=r"without -pooler"):
        migrate(connect(HOST="ep-x-pooler.database.example.com"))
    wrapper = connect()
    with (
        transaction.atomic(using="other"),
        pytest.raises(CommandError, match="inside a transaction"),
    ):
        migrate(wrapper)
