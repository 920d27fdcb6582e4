"""The command lakebase_role: what it changes, reports and refuses."""

import json
import re
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.contrib.auth.models import Group
from django.core.management import CommandError, call_command, load_command_class
from django.db import connections

from django_lakebase.exceptions import LakebaseError
from django_lakebase.roles import apply
from tests.integration.roles.conftest import GRANTS, OWNER_ROLE, Site

SERVICE_PRINCIPAL = "11111111-2222-4333-8444-555555555555"
OWNERS = """
SELECT relname, pg_get_userbyid(relowner) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
"""


@pytest.fixture
def create(site: Site) -> Callable[..., str]:
    """Return a function that creates the role of the app, as the owner."""

    def run(*arguments: str, role: str = "") -> str:
        command = ("lakebase_role", "create", "--service-principal", site.app)
        return site.call(role or site.owner, *command, *arguments)

    return run


@pytest.fixture
def new_role(site: Site) -> str:
    """Return the application id of a service principal without a role."""
    site.execute(site.owner, f'DROP ROLE IF EXISTS "{SERVICE_PRINCIPAL}"')
    return SERVICE_PRINCIPAL


@pytest.fixture
def create_as_app(site: Site, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs the command as the app, which may do nothing."""

    def run(role: str, *arguments: str) -> str:
        site.connect(site.app)
        command = ("create", "--service-principal", role, *arguments)
        with pytest.raises(SystemExit) as caught:
            call_command("lakebase_role", *command, database="other")
        assert caught.value.code == 1
        return capsys.readouterr().out

    return run


def owners(site: Site) -> dict[str, str]:
    """Return the owner of each table in public."""
    with site.session(site.owner) as session:
        return dict(session.execute(OWNERS).fetchall())


def test_second_run_changes_nothing(site, create):
    nothing = f'Nothing to change for "{site.app}".\n'

    assert create() != nothing
    assert create() == nothing
    assert not create("--owner-role", OWNER_ROLE).startswith(nothing)
    assert create("--owner-role", OWNER_ROLE).startswith(nothing)


def test_two_runs_at_the_same_time(site, create):
    """The second one waits, and finds what the first has done."""
    create("--dry-run")
    start = threading.Barrier(3)

    def run(_):
        start.wait()
        return create("--owner-role", OWNER_ROLE)

    with ThreadPoolExecutor(3) as executor:
        outputs = list(executor.map(run, range(3)))

    nothing = [output.startswith("Nothing to change") for output in outputs]
    assert sorted(nothing) == [False, True, True]


def test_dry_run_and_sql_change_nothing(site, create):
    planned = create("--dry-run")
    command = ("lakebase_role", "sql", "--service-principal", site.app)
    script = site.call(site.owner, *command)

    assert create("--dry-run") == planned
    assert planned.startswith(f'To be run as "{site.owner}":\n  GRANT ')
    with site.session(site.owner) as session:
        session.execute(script.encode())
    assert create("--dry-run") == f'Nothing to change for "{site.app}".\n'


def test_script_of_a_run_contains_what_is_left(site, new_role, create_as_app):
    """The app may not create roles, so the owner gets a script."""
    script = create_as_app(new_role, "--format", "sql")

    with site.session(site.owner) as session:
        session.execute(script.encode())
    create = ("create", "--service-principal", new_role)
    assert "Nothing to change" in site.call(site.owner, "lakebase_role", *create)


def test_script_of_a_run_shows_what_was_done_as_comments(site, create):
    lines = create("--format", "sql").splitlines()

    assert lines[-2:] == ["BEGIN;", "COMMIT;"]
    assert lines[:-2]
    assert all(line.startswith("-- Done: ") for line in lines[:-2])


def test_name_of_a_table_does_not_end_a_comment_in_the_script(site, create):
    """Who reviews and runs the script may do more than who has created the table."""
    options = {"schema": "notes"}
    site.call(site.owner, "migrate", "-v0", **options)
    name = "a\nCREATE TABLE injected (id int);\rCREATE TABLE injected (id int); --"
    site.execute(site.owner, f'CREATE TABLE notes."{name}" (id int)')
    command = ("lakebase_role", "sql", "--service-principal", site.app)

    script = site.call(site.owner, *command, **options)

    lines = script.splitlines()
    assert any("CREATE TABLE injected" in line for line in lines)
    assert not [line for line in lines if line.startswith("CREATE")]


def test_json_report_has_stable_fields(site, create):
    report = json.loads(create("--format", "json"))

    assert set(report) == {"version", "alias", "role", "changes", "notes"}
    assert (report["version"], report["role"]) == (1, site.app)
    assert {change["id"] for change in report["changes"]} == {
        "schema-privileges",
        "table-privileges",
        "sequence-privileges",
        "default-privileges",
    }
    for change in report["changes"]:
        assert set(change) == {"status", "id", "role", "detail", "statements"}
        assert (change["status"], change["role"]) == ("done", site.owner)


def test_statements_that_need_another_role_are_printed(site, create, create_as_app):
    """The app may not grant itself privileges, so the owner gets the statements."""
    changes = json.loads(create_as_app(site.app, "--format", "json"))["changes"]

    assert {change["status"] for change in changes} == {"denied"}
    with site.session(site.owner) as session:
        for change in changes:
            assert change["role"] == site.owner
            for statement in change["statements"]:
                session.execute(statement)
    assert create().startswith("Nothing to change")


def test_role_that_could_not_be_created_is_left_to_the_owner(
    site, new_role, create_as_app
):
    out = create_as_app(new_role, "--owner-role", "new_owner")

    assert f'Not done, because it has to be run as "{site.owner}":' in out
    assert f"SELECT databricks_create_role('{new_role}'," in out


def test_app_works_with_tables_that_a_developer_has_migrated(site, create):
    create()

    app = site.connect(site.app)
    with app.cursor() as cursor:
        cursor.execute("INSERT INTO auth_group (name) VALUES ('editors')")
        cursor.execute("SELECT setval('auth_group_id_seq', 7)")
        cursor.execute("UPDATE auth_group SET name = 'writers'")
        cursor.execute("CREATE TABLE note (group_id int REFERENCES auth_group)")
        cursor.execute("DELETE FROM auth_group")


def test_tables_of_the_next_migration_of_a_developer_can_be_used(site, create):
    create()
    site.execute(site.owner, "CREATE TABLE later (id serial)")

    with site.session(site.app) as session:
        session.execute("INSERT INTO later DEFAULT VALUES")


def test_tables_of_the_owner_can_be_used_if_none_existed_before(site, create):
    site.execute(site.owner, "DROP OWNED BY {owner}")
    create()
    site.execute(site.owner, "CREATE TABLE later (id serial)")

    with site.session(site.app) as session:
        session.execute("INSERT INTO later DEFAULT VALUES")


def test_read_only_role_reads_and_does_not_write(site, new_role):
    command = ("lakebase_role", "create", "--service-principal", new_role)
    site.call(site.owner, *command, "--read-only")
    assert site.call(site.owner, *command, "--read-only").startswith("Nothing")
    site.execute(site.owner, "CREATE TABLE later (id serial)")

    with site.session(new_role) as session:
        assert session.execute("SELECT count(*) FROM later").fetchone() == (0,)
        assert session.execute("SELECT count(*) FROM auth_user").fetchone() == (0,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            session.execute("INSERT INTO later DEFAULT VALUES")
        session.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("INSERT INTO later DEFAULT VALUES")


def test_check_of_a_read_only_role_requires_only_select(site):
    """The app logs in as a group that it is a member of."""
    group = site.local.facts["group"]
    site.execute(site.owner, f'DROP ROLE IF EXISTS "{group}"')
    site.call(site.owner, "lakebase_role", "create", "--group", group, "--read-only")

    steps = site.check(role=group)

    assert steps["database"]["status"] == "ok"
    assert steps["privileges"]["status"] == steps["ownership"]["status"] == "ok"
    assert "can read tables" in steps["privileges"]["detail"]
    site.execute(site.owner, f'REVOKE ALL ON TABLE auth_user FROM "{group}"')
    [finding] = site.check(role=group)["privileges"]["findings"]
    assert finding["id"] == "table-privileges"


def test_owner_role_lets_developer_and_app_migrate_in_turn(site, create):
    out = create("--owner-role", OWNER_ROLE)

    assert f'Set OPTIONS["assume_role"] to "{OWNER_ROLE}"' in out
    assert set(owners(site).values()) == {OWNER_ROLE}
    for role in (site.app, site.owner):
        site.execute(
            site.owner, "DELETE FROM django_migrations WHERE name LIKE '0012%'"
        )
        site.call(role, "migrate", "-v0", assume_role=OWNER_ROLE)
    assert set(owners(site).values()) == {OWNER_ROLE}


def test_owner_role_of_the_settings_is_created(site):
    """Sessions of Django fail with the setting until the role exists."""
    command = ("--service-principal", site.app)
    options = {"assume_role": OWNER_ROLE}

    script = site.call(site.owner, "lakebase_role", "sql", *command, **options)
    out = site.call(site.owner, "lakebase_role", "create", *command, **options)

    assert f'CREATE ROLE "{OWNER_ROLE}" NOLOGIN;' in script
    assert f'CREATE ROLE "{OWNER_ROLE}" NOLOGIN;' in out
    assert site.check(assume_role=OWNER_ROLE)["ownership"]["status"] == "ok"


def test_owner_role_that_can_log_in_is_rejected(site, create):
    message = "can log in, so it cannot be the owner"
    with pytest.raises(CommandError, match=message):
        create("--owner-role", site.owner)
    command = ("lakebase_role", "sql", "--service-principal", site.app)
    with pytest.raises(CommandError, match=message):
        site.call(site.owner, *command, "--owner-role", site.owner)

    assert create("--dry-run").startswith("To be run")


def test_role_cannot_be_its_own_owner_role(site, new_role):
    """Otherwise it would be created, and rejected by the next run."""
    command = ("lakebase_role", "create", "--service-principal", new_role)
    with pytest.raises(CommandError, match="can log in, so it cannot be the owner"):
        site.call(site.owner, *command, "--owner-role", new_role)


@pytest.mark.parametrize("place", ["before", "after"])
def test_options_of_django_are_accepted_around_the_action(place):
    action, options = ("show", "--database", "nope"), ("--traceback", "-v", "0")
    arguments = (*options, *action) if place == "before" else (*action, *options)
    parser = load_command_class("django_lakebase", "lakebase_role").create_parser(
        "manage.py", "lakebase_role"
    )

    parsed = parser.parse_args(arguments)

    assert (parsed.traceback, parsed.verbosity) == (True, 0)


def test_second_owner_role_is_rejected(site, create):
    """A typo would take the tables from the sessions that use the first."""
    create("--owner-role", OWNER_ROLE)

    with pytest.raises(CommandError, match=f'owner role "{OWNER_ROLE}"') as caught:
        create("--owner-role", "site_owners")

    assert f'ALTER ROLE "{OWNER_ROLE}" RENAME TO "site_owners";' in str(caught.value)
    assert set(owners(site).values()) == {OWNER_ROLE}


def test_role_without_the_owner_role_of_the_settings(site, new_role):
    """For requests: it can use the tables, and cannot alter them."""
    command = ("lakebase_role", "create", "--service-principal")
    site.call(site.owner, *command, site.app, "--owner-role", OWNER_ROLE)

    site.call(
        site.owner, *command, new_role, "--owner-role", "", assume_role=OWNER_ROLE
    )

    with site.session(new_role) as session:
        session.execute("SELECT FROM auth_user")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("ALTER TABLE auth_user ADD x int")


def test_tables_in_another_schema_are_named(site, create):
    site.execute(site.owner, "CREATE SCHEMA empty")
    command = ("lakebase_role", "sql", "--service-principal", site.app)

    script = site.call(site.owner, *command, schema="empty")

    assert '-- The schema "empty" contains no Django tables, but another' in script
    assert "contains no Django tables" not in create()


def test_read_only_role_that_could_write_before_is_named(site, create, new_role):
    command = ("lakebase_role", "create", "--service-principal", new_role)
    site.call(site.owner, *command)

    out = site.call(site.owner, *command, "--read-only")

    assert f'"{new_role}" can write' in out
    site.call(site.owner, "lakebase_role", "revoke", "--service-principal", new_role)
    assert "can write" not in site.call(site.owner, *command, "--read-only")


def test_table_of_a_database_cache_belongs_to_the_project(site, create, settings):
    backend = "django.core.cache.backends.db.DatabaseCache"
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": "web_cache"}}
    site.call(site.owner, "createcachetable")

    create()

    site.execute(site.app, "DELETE FROM web_cache")


def test_owner_role_without_its_setting_is_a_warning(site, create):
    create("--owner-role", OWNER_ROLE)

    step = site.check()["ownership"]

    [finding] = step["findings"]
    assert (step["status"], finding["id"]) == ("warn", "assume-role-unset")
    assert step["hint"] == f'Set OPTIONS["assume_role"] to "{OWNER_ROLE}".'
    assert site.check(assume_role=OWNER_ROLE)["ownership"]["status"] == "ok"


def test_second_developer_joins_the_owner_role(site, create):
    """A role without any attribute, which neither created the tables nor the role."""
    developer = site.local.facts["developer"]
    site.execute(site.owner, f'DROP ROLE IF EXISTS "{developer}"')
    create("--owner-role", OWNER_ROLE)
    command = ("lakebase_role", "create", "--user", developer)
    site.call(site.owner, *command, "--owner-role", OWNER_ROLE)
    site.execute(site.owner, "DELETE FROM django_migrations WHERE name LIKE '0012%'")

    site.call(developer, "migrate", "-v0", assume_role=OWNER_ROLE)

    assert set(owners(site).values()) == {OWNER_ROLE}
    assert site.check(assume_role=OWNER_ROLE)["ownership"]["status"] == "ok"


def test_owner_role_takes_the_tables_of_an_app_that_migrated_first(site, create):
    """
    The owner of the database is not a member of the app's role, so the app gives them.

    It owns nothing else, so one statement is enough.
    """
    with site.session(site.app) as session, site.session(site.owner) as other:
        other.execute(f'GRANT CREATE ON SCHEMA public TO "{site.app}"')
        session.execute("CREATE TABLE django_session_copy (id int)")
        other.execute("DROP TABLE django_session")
        session.execute("ALTER TABLE django_session_copy RENAME TO django_session")

    with pytest.raises(SystemExit):
        create("--owner-role", OWNER_ROLE)
    assert set(owners(site).values()) == {OWNER_ROLE, site.app}
    out = create("--owner-role", OWNER_ROLE, role=site.app)

    assert f'REASSIGN OWNED BY "{site.app}" TO "{OWNER_ROLE}";' in out
    assert set(owners(site).values()) == {OWNER_ROLE}


def test_tables_of_other_projects_are_left_alone(site, create):
    site.execute(site.owner, "CREATE TABLE of_others (id serial)")

    out = create("--owner-role", OWNER_ROLE)

    assert owners(site)["of_others"] == site.owner
    assert "of_others" not in out
    assert "ALL TABLES" not in out
    out = create()
    assert "of_others" not in out
    with (
        site.session(site.app) as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        session.execute("SELECT FROM of_others")


def test_everything_in_the_schema_of_the_project_is_taken(site):
    """
    In the project's schema, functions, types and views belong to the project.

    The name of the schema needs quotes.
    """
    options, schema = {"schema": "My notes"}, '"My notes"'
    site.call(site.owner, "migrate", "-v0", **options)
    site.execute(
        site.owner,
        f"CREATE FUNCTION {schema}.answer(int) RETURNS int LANGUAGE sql AS 'SELECT 42'",
        f"CREATE AGGREGATE {schema}.number(*) (sfunc = int8inc, stype = int8, "
        "initcond = 0)",
        f"CREATE TYPE {schema}.colour AS ENUM ('red')",
        f"CREATE DOMAIN {schema}.word AS text",
        f"CREATE VIEW {schema}.users AS TABLE {schema}.auth_user",
        f"CREATE MATERIALIZED VIEW {schema}.kept AS TABLE {schema}.auth_user",
        f"CREATE SEQUENCE {schema}.numbers",
        f"CREATE STATISTICS {schema}.stats ON id, username FROM {schema}.auth_user",
        f'CREATE COLLATION {schema}.plain FROM "C"',
        f"CREATE TABLE {schema}.log (id serial, day date) PARTITION BY RANGE (day)",
        f"CREATE TABLE {schema}.log_1 PARTITION OF {schema}.log DEFAULT",
    )
    command = ("lakebase_role", "create", "--service-principal", site.app)
    arguments = (*command, "--owner-role", OWNER_ROLE)

    out = site.call(site.owner, *arguments, **options)

    names = ("answer(integer)", "number()", "colour", "word", "users", "kept")
    for name in (*names, "numbers", "stats", "plain", "log", "log_1"):
        assert re.search(
            rf'ALTER [A-Z ]+ {schema}\.{re.escape(name)} OWNER TO "site_', out
        )
    again = site.call(site.owner, *arguments, **options)
    assert again.startswith("Nothing to change")
    assert site.check(assume_role=OWNER_ROLE, **options)["ownership"]["status"] == "ok"


def test_schema_that_does_not_exist_yet(site, create):
    """The role may create it, and the next run grants the rest."""
    site.execute(site.owner, "REVOKE CREATE ON DATABASE {database} FROM {app}")
    command = ("lakebase_role", "create", "--service-principal", site.app)

    out = site.call(site.owner, *command, schema="later")
    site.call(site.app, "migrate", "-v0", schema="later")

    assert f'GRANT CREATE ON DATABASE "{site.name}" TO "{site.app}";' in out
    assert 'The schema "later" does not exist yet.' in out


def test_revoke_takes_everything_back(site, create, new_role):
    create("--owner-role", OWNER_ROLE)
    site.call(site.owner, "lakebase_role", "create", "--service-principal", new_role)
    revoke = ("lakebase_role", "revoke", "--service-principal")

    out = site.call(site.owner, *revoke, new_role)
    site.call(site.owner, *revoke, site.app, "--owner-role", OWNER_ROLE)

    assert out.count("REVOKE ALL ON") >= 4
    assert site.call(site.owner, *revoke, new_role).startswith("Nothing to change")
    # Nothing depends on the role any more.
    site.execute(site.owner, f'DROP ROLE "{new_role}"')
    with (
        site.session(site.app) as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        session.execute("SELECT FROM auth_user")


def test_revoke_says_what_the_role_owns(site, create):
    create()
    site.execute(site.owner, GRANTS["app"])
    site.call(site.app, "migrate", "-v0", schema="own")
    revoke = ("lakebase_role", "revoke", "--service-principal", site.app)

    output = site.call(site.owner, *revoke, schema="own")
    assert f'"{site.app}" keeps all privileges on what it owns: ' in output


def test_show_names_roles_attributes_privileges_and_owners(site, create):
    create("--owner-role", OWNER_ROLE)

    out = site.call(site.owner, "lakebase_role", "show")

    assert f'"{OWNER_ROLE}": no login' in out
    assert f"member of {OWNER_ROLE}" in out
    assert "createrole, bypassrls" in out
    shown = json.loads(
        site.call(site.owner, "lakebase_role", "show", "--format", "json")
    )
    assert list(shown["owners"]) == [OWNER_ROLE]
    assert (shown["version"], shown["alias"]) == (1, "other")


def test_role_is_created_through_the_api(site):
    # The owner may not drop a role that the workspace has created.
    new_role = str(uuid.uuid4())
    command = ("lakebase_role", "create", "--service-principal", new_role)

    out = site.call(site.owner, *command, "--via", "api")

    assert "databricks_create_role" not in out
    with site.session(new_role) as session:
        session.execute("SELECT FROM auth_user")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--service-principal", "my app"),
        ("--user", "somebody"),
        ("--group", ""),
        ("--group", "x" * 64),
        ("--group", "pg_monitor"),
        ("--group", "public"),
        ("--user", f"{'x' * 64}@example.com"),
    ],
)
def test_invalid_identity_is_rejected_before_a_connection(local, option, value):
    with pytest.raises(CommandError, match=option):
        call_command("lakebase_role", "create", option, value)

    assert local.fetch_counters()["requests"] == {}


def test_table_in_use_is_reported_and_nothing_is_changed(site, create, monkeypatch):
    monkeypatch.setattr(apply, "LOCK_TIMEOUT", "50ms")
    with site.session(site.owner) as session, session.transaction():
        session.execute("SELECT FROM auth_user")
        with pytest.raises(CommandError, match="Nothing was changed"):
            create("--owner-role", OWNER_ROLE)

    assert set(owners(site).values()) == {site.owner}


def test_member_that_was_removed_gets_the_statement(site, create):
    create("--owner-role", OWNER_ROLE)
    site.execute(site.owner, f"REVOKE {OWNER_ROLE} FROM {{app}}")

    step = site.check(assume_role=OWNER_ROLE)["role"]
    app = site.connect(site.app, assume_role=OWNER_ROLE)
    with pytest.raises(LakebaseError, match="may not switch to the role") as caught:
        app.ensure_connection()
    app.close()

    assert step["status"] == "fail"
    assert step["hint"] == caught.value.hint
    site.execute(site.owner, step["hint"][step["hint"].index("GRANT") :])
    assert site.check(assume_role=OWNER_ROLE)["role"]["status"] == "ok"


def test_privilege_to_connect_that_was_revoked_gets_the_statement(site, create):
    create()
    site.execute(site.owner, "REVOKE CONNECT ON DATABASE {database} FROM PUBLIC, {app}")

    step = site.check()["login"]

    assert step["status"] == "fail"
    [statement] = re.findall(r"GRANT CONNECT ON .*?;", step["hint"])
    site.execute(site.owner, statement)
    assert site.check()["privileges"]["status"] == "ok"


def test_reset_by_the_platform_is_a_finding_of_its_own(site, create):
    create()
    site.execute(site.app, "CREATE TABLE app_note (id int)")
    with site.session(site.owner) as session:
        session.execute("DROP TABLE django_session")
    site.execute(site.app, "ALTER TABLE app_note RENAME TO django_session")
    site.execute(site.owner, "REVOKE ALL ON SCHEMA public FROM {app}")

    step = site.check()["privileges"]

    [finding] = step["findings"]
    assert finding["id"] == "schema-reset"
    assert "attached to a Databricks App again" in finding["detail"]
    site.correct(step)
    assert site.check()["privileges"]["status"] == "ok"


def test_migration_of_a_table_of_another_owner_is_explained(site, create):
    create()
    site.execute(site.owner, "DELETE FROM django_migrations WHERE name LIKE '0012%'")

    with pytest.raises(CommandError, match='table "auth_user", but another role') as e:
        site.call(site.app, "lakebase_migrate")

    assert "Traceback" not in str(e.value)
    assert "lakebase_check --deploy" in str(e.value)


def test_migration_without_privileges_is_explained(site):
    site.execute(site.owner, GRANTS["app"])

    with pytest.raises(CommandError, match="lakebase_role create") as caught:
        site.call(site.app, "lakebase_migrate")

    assert 'the table "django_migrations" of another role' in str(caught.value)
    assert not connections["other"].in_atomic_block


def test_partitions_belong_to_the_partitioned_table(site, create):
    """Changing the columns of the table requires the ownership of its partitions."""
    site.execute(
        site.owner,
        "DROP TABLE django_session",
        "CREATE TABLE django_session (id serial, day date) PARTITION BY RANGE (day)",
        "CREATE TABLE sessions PARTITION OF django_session DEFAULT",
    )

    create("--owner-role", OWNER_ROLE)
    site.execute(site.app, "ALTER TABLE django_session ADD note text")
    site.execute(site.owner, "ALTER TABLE sessions OWNER TO {owner}")

    assert "sessions" in site.check(assume_role=OWNER_ROLE)["ownership"]["detail"]


def test_table_whose_name_contains_quotes_belongs_to_the_project(
    site, create, monkeypatch
):
    """Django leaves quotes in ``db_table`` as they are."""
    monkeypatch.setattr(Group._meta, "db_table", '"Groups"')
    site.execute(site.owner, 'ALTER TABLE auth_group RENAME TO "Groups"')

    create()

    with site.session(site.app) as session:
        session.execute('SELECT FROM "Groups"')
        session.execute("SELECT nextval('auth_group_id_seq')")


def test_other_letter_case_of_an_existing_role_is_named(site):
    owner = site.owner.upper()

    out = site.call(
        site.owner, "lakebase_role", "create", "--dry-run", "--user", f" {owner} "
    )

    assert f"databricks_create_role('{owner}', 'USER')" in out
    assert f'The role "{site.owner}" exists already.' in out


def test_privileges_on_the_tables_of_another_owner_role_are_not_claimed(site, create):
    """The owner role changed, but the settings of a deployment still name the old."""
    create("--owner-role", OWNER_ROLE)
    other = f"{site.name}_owner"
    site.execute(
        site.owner,
        f"CREATE ROLE {other}",
        f"GRANT {other} TO CURRENT_USER",
        f"GRANT CREATE ON SCHEMA public TO {other}",
        f"REASSIGN OWNED BY {OWNER_ROLE} TO {other}",
    )

    steps = site.check(assume_role=OWNER_ROLE)

    assert steps["ownership"]["status"] == "fail"
    assert "can read" not in steps["privileges"]["detail"]
    assert "ownership" in steps["privileges"]["detail"]
    assert "ownership" in steps["migrations"]["hint"]
