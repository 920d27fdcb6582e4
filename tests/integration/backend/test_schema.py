"""OPTIONS["schema"]: migrations, introspection, extensions, privileges, time limits."""

import re
import threading

import psycopg
import pytest
from django.contrib.postgres.operations import CreateExtension
from django.core.management import call_command
from django.db import DatabaseError, connections, transaction
from django.db.migrations.state import ProjectState

from django_lakebase.connect import session_state
from django_lakebase.diagnosis.steps import Diagnosis
from django_lakebase.exceptions import LakebaseError
from tests.helpers.plain_psycopg import new_database, open_session
from tests.helpers.queries import fetch_value
from tests.helpers.shop_test_runs import MANAGE

OWN = {"schema": "of the shop", "connect_budget": 120}


@pytest.fixture
def new_alias(new_wrapper, database, monkeypatch):
    """Return a function that adds an alias, which Django's commands can use."""
    made = set()

    def new(schema="notes", alias="schemas", name=database, **options):
        own = {"NAME": name, "OPTIONS": {"schema": schema, **options}}
        wrapper = new_wrapper(alias, **own)
        monkeypatch.setitem(connections.settings, alias, wrapper.settings_dict)
        connections[alias] = wrapper
        made.add(alias)
        return wrapper

    yield new
    for alias in made:
        del connections[alias]


def migrate(**options):
    """Run migrate for the alias."""
    call_command("migrate", database="schemas", verbosity=0, **options)


def tables(local, database):
    """Return the schema of each table of Django's auth, and of its migrations."""
    sql = (
        "SELECT tablename, schemaname FROM pg_tables "
        "WHERE tablename IN ('auth_user', 'django_migrations')"
    )
    with open_session(local, dbname=database) as session:
        return sorted(session.execute(sql).fetchall())


def test_migrate_creates_schema_and_tables(new_alias, local, database):
    new_alias('Own "notes"')

    migrate()

    schema = 'Own "notes"'
    assert tables(local, database) == [
        ("auth_user", schema),
        ("django_migrations", schema),
    ]
    migrate(check_unapplied=True)


def test_tables_of_another_project_in_public_are_ignored(new_alias, local, database):
    """Its applied migrations do not count, and flush keeps its rows."""
    with open_session(local, dbname=database) as session:
        session.execute("CREATE TABLE public.auth_user (id int)")
        session.execute("INSERT INTO public.auth_user VALUES (1)")
        session.execute(
            "CREATE TABLE public.django_migrations "
            "(id int, app text, name text, applied timestamptz)"
        )
        session.execute(
            "INSERT INTO public.django_migrations "
            "VALUES (1, 'contenttypes', '0001_initial', now())"
        )
    wrapper = new_alias()

    migrate()
    call_command("flush", database="schemas", interactive=False, verbosity=0)

    assert ("auth_user", "notes") in tables(local, database)
    assert fetch_value(wrapper, "SELECT count(*) FROM auth_user") == 0
    assert fetch_value(wrapper, "SELECT count(*) FROM public.auth_user") == 1


def test_migrate_in_a_transaction_keeps_the_search_path(new_alias):
    """As in a TestCase: the rest of the test needs the tables of the schema."""
    wrapper = new_alias()

    with transaction.atomic(using="schemas"):
        migrate()
        assert fetch_value(wrapper, "SHOW search_path") == '"notes",public'
        assert fetch_value(wrapper, "SELECT count(*) FROM auth_user") == 0


def test_session_that_has_migrated_can_be_replaced(new_alias):
    """When the server ends it: the schema leaves no state in it."""
    wrapper = new_alias()

    migrate()

    assert session_state.marks(wrapper.connection) == []


def test_introspection_lists_only_the_schema(new_alias, local, database, capsys):
    wrapper = new_alias()
    migrate()
    with open_session(local, dbname=database) as session:
        session.execute("CREATE TABLE public.of_another_project (id int)")

    call_command("inspectdb", database="schemas")

    assert "of_another_project" not in wrapper.introspection.table_names()
    output = capsys.readouterr().out
    assert "AuthUser" in output
    assert "OfAnotherProject" not in output


@pytest.mark.parametrize("exists", [False, True])
def test_extension_is_created_in_public(new_alias, local, database, exists):
    """So that the other schemas of the database can use it too."""
    wrapper = new_alias()
    if exists:
        with open_session(local, dbname=database) as session:
            session.execute("CREATE EXTENSION hstore SCHEMA public")
    wrapper.prepare_database()

    with wrapper.schema_editor() as editor:
        for operation in (CreateExtension("hstore"), CreateExtension("citext")):
            operation.database_forwards("app", editor, ProjectState(), ProjectState())
        for sql in (
            "create extension pg_trgm;\r\n",
            "-- A comment.\nCREATE EXTENSION IF NOT EXISTS earthdistance CASCADE",
            "CREATE EXTENSION btree_gin WITH SCHEMA notes",
        ):
            editor.execute(sql, params=None)

    with wrapper.cursor() as cursor:
        cursor.execute(
            "SELECT extname, extnamespace::regnamespace::text FROM pg_extension "
            "WHERE extname NOT IN ('plpgsql', 'databricks_auth') ORDER BY 1"
        )
        assert cursor.fetchall() == [
            ("btree_gin", "notes"),
            ("citext", "public"),
            ("cube", "public"),
            ("earthdistance", "public"),
            ("hstore", "public"),
            ("pg_trgm", "public"),
        ]
        cursor.execute("SELECT 'a=>1'::hstore -> 'a'")
        assert cursor.fetchone() == ("1",)


def test_schema_costs_no_round_trip(new_alias, new_wrapper, local, database):
    """It is in the startup packet, like the time zone."""
    with new_alias().cursor() as cursor:
        cursor.execute("SHOW search_path")
        assert cursor.fetchone() == ('"notes",public',)
        cursor.execute("SHOW TimeZone")
        assert cursor.fetchone() == ("UTC",)


@pytest.fixture
def of_owner(local):
    """Yield the name of a database in which the service principal has no rights."""
    with new_database(local, user=local.facts["owner"]) as name:
        yield name


def run_hint(local, text, database):
    """Run the SQL of a message as the owner of the database."""
    statements = re.findall(r"GRANT [^;]*;", text)
    assert statements
    with open_session(local, user=local.facts["owner"], dbname=database) as session:
        for statement in statements:
            session.execute(statement)


def database_step(wrapper):
    """Return the step of lakebase_check that reports the schema."""
    [step] = [step for step in Diagnosis(wrapper).run() if step.id == "database"]
    return step


def test_role_that_may_not_create_the_schema_gets_the_statement(
    new_alias, local, of_owner
):
    """The owner runs it, and migrate succeeds."""
    wrapper = new_alias(name=of_owner)

    with pytest.raises(LakebaseError) as caught:
        migrate()
    before = database_step(wrapper)
    run_hint(local, str(caught.value), of_owner)
    after = database_step(wrapper)
    migrate()

    role = local.facts["service_principal"]
    assert caught.value.failure_id == "schema-missing"
    assert isinstance(caught.value.__cause__, psycopg.errors.InsufficientPrivilege)
    assert str(caught.value).startswith('DATABASES["schemas"]: the schema "notes"')
    assert f'"{role}" is not allowed to create it' in str(caught.value)
    assert before.status == "warn"
    assert f'GRANT CREATE ON DATABASE "{of_owner}" TO "{role}";' in before.hint
    assert after.detail == f'"{of_owner}", where migrate will create the schema "notes"'
    assert ("auth_user", "notes") in tables(local, of_owner)


def test_schema_without_usage_is_an_error(new_alias, local, of_owner):
    """PostgreSQL would skip it in the search path, and use public."""
    new_alias(name=of_owner)
    with open_session(local, user=local.facts["owner"], dbname=of_owner) as session:
        session.execute("CREATE SCHEMA notes")

    with pytest.raises(LakebaseError) as caught:
        migrate()
    run_hint(local, str(caught.value), of_owner)
    migrate()

    assert caught.value.failure_id == "schema-denied"
    assert ("auth_user", "notes") in tables(local, of_owner)


def test_check_names_the_schemas_that_hold_the_tables(new_alias, local, database):
    """A second principal would otherwise migrate into an empty schema."""
    new_alias("of_the_first")
    migrate()
    second = new_alias("of_the_second", alias="second")

    step = database_step(second)

    assert step.status == "warn"
    assert (
        '"of_the_second" contains no Django tables, but "of_the_first" does'
        in step.detail
    )
    assert 'set OPTIONS["schema"] (LAKEBASE_SCHEMA) to "of_the_first"' in step.hint
    run_hint(local, step.hint, database)
    assert database_step(new_alias("of_the_first")).status == "ok"


def test_check_suggests_a_schema_where_public_is_closed(new_alias, local, of_owner):
    """As on Databricks Apps."""
    role = local.facts["service_principal"]
    with open_session(local, user=local.facts["owner"]) as session:
        session.execute(f'GRANT CREATE ON DATABASE {of_owner} TO "{role}"')

    step = database_step(new_alias("", name=of_owner))

    assert step.status == "warn"
    assert "on Databricks Apps, to auto" in step.hint


def test_processes_may_create_the_schema_at_the_same_time(new_alias):
    """All of them find it missing, and only one creates it."""
    wrappers = [new_alias("raced", alias=f"schema{n}") for n in range(5)]
    barrier = threading.Barrier(len(wrappers))
    raised = []

    def prepare(wrapper):
        wrapper.inc_thread_sharing()
        wrapper.ensure_connection()
        barrier.wait()
        try:
            wrapper.prepare_database()
        except DatabaseError as exc:
            raised.append(exc)

    threads = [threading.Thread(target=prepare, args=(w,)) for w in wrappers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert raised == []


def test_time_limits_reach_the_server(new_alias):
    """In milliseconds."""
    wrapper = new_alias(statement_timeout=90, idle_in_transaction_session_timeout=1.5)

    assert fetch_value(wrapper, "SHOW statement_timeout") == "90s"
    limit = fetch_value(wrapper, "SHOW idle_in_transaction_session_timeout")
    assert limit == "1500ms"


def test_project_with_a_schema_runs_its_tests(shop):
    """In test databases and their clones."""
    databases = {"default": {"ENGINE": "django_lakebase", "OPTIONS": OWN}}

    run = shop.run(*MANAGE, "--parallel=2", databases=databases)

    assert run.status == 0, run.output
    assert run.each("database") == {f"test_{shop.name}_{n}" for n in (1, 2)}
    shop.assert_nothing_is_left()
