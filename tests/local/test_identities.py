"""The identities of the emulator: owner, developer and the app's service principal."""

import json
import os
import subprocess
import sys

import psycopg
import pytest
from databricks.sdk import WorkspaceClient
from psycopg import errors
from psycopg.sql import SQL, Identifier

from django_lakebase.local.client import ClientError, LocalLakebase
from django_lakebase.local.state.model import WorkspaceState
from django_lakebase.local.state.store import StateStore
from tests.helpers.plain_psycopg import open_session

COMMAND = [sys.executable, "-m", "django_lakebase.local", "as"]
# Prints the environment, and the user for whom the SDK logs in with it.
LOG_IN = """
import json, os
from databricks.sdk import WorkspaceClient
print(json.dumps([dict(os.environ), WorkspaceClient().current_user.me().user_name]))
"""
PEOPLE = ("owner", "developer")
# The first starts the PostgreSQL of the machine, the second the embedded one.
VERSIONS = ("system", "embedded")


def run_as(local, *arguments, **variables):
    """Run ``lakebase-local as`` with *arguments*; return the finished process."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, "LAKEBASE_LOCAL_URL": local.url, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("identity", PEOPLE)
def test_as_gives_a_person_a_token_instead_of_the_client_secret(
    local, monkeypatch, identity
):
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "another's")
    monkeypatch.setenv("PGPASSWORD", "another's")

    result = run_as(local, identity, "--", sys.executable, "-c", LOG_IN)

    env, user_name = json.loads(result.stdout)
    login = {"DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET", "PGUSER"}
    app = local.environment_of("app")
    assert env["DATABRICKS_TOKEN"] == local.facts[f"{identity}_token"]
    assert env["PGUSER"] == user_name == local.facts[identity]
    assert not ({*login, "PGPASSWORD"} - {"PGUSER"}) & set(env)
    assert {name: env[name] for name in app if name not in login} == {
        name: value for name, value in app.items() if name not in login
    }


def test_as_app_restores_the_service_principal_under_another_identity(local):
    command = [*COMMAND, "app", "--", sys.executable, "-c", LOG_IN]

    result = run_as(local, "owner", "--", *command)

    env, user_name = json.loads(result.stdout)
    assert env["PGUSER"] == user_name == local.facts["service_principal"]
    assert "DATABRICKS_TOKEN" not in env


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ([sys.executable, "-c", "raise SystemExit(7)"], 7),
        (["no-such-command"], 127),
    ],
)
def test_as_exits_with_the_status_of_its_command(local, command, status):
    result = run_as(local, "owner", "--", *command)

    assert result.returncode == status
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "url", "status", "message"),
    [
        (["owner"], None, 1, "as needs a command: lakebase-local as owner -- CMD"),
        (["owner", "--", "true"], "", 1, "LAKEBASE_LOCAL_URL is not set"),
        (
            ["owner", "--", "true"],
            "http://127.0.0.1:1",
            1,
            "No local Lakebase answers at http://127.0.0.1:1",
        ),
        (["root", "--", "true"], None, 2, "invalid choice: 'root'"),
    ],
)
def test_as_explains_why_it_cannot_run_a_command(
    local, arguments, url, status, message
):
    variables = {} if url is None else {"LAKEBASE_LOCAL_URL": url}

    result = run_as(local, *arguments, **variables)

    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_unknown_identity_is_rejected_with_the_known_ones(local):
    with pytest.raises(ClientError, match="app, developer, owner"):
        local.environment_of("root")


def test_developer_logs_in_after_a_role_was_created(local, connect, login_error):
    developer, owner = local.facts["developer"], local.facts["owner"]
    assert f'role "{developer}" does not exist' in login_error(user=developer)

    with connect(user=owner) as session:
        session.execute("SELECT databricks_create_role(%s, 'USER')", (developer,))
        try:
            with connect(user=developer) as other:
                row = other.execute(
                    "SELECT rolcreatedb OR rolcreaterole OR rolbypassrls OR rolsuper, "
                    "pg_has_role('databricks_superuser', 'member') "
                    "FROM pg_roles WHERE rolname = current_user"
                ).fetchone()
        finally:
            session.execute(SQL("DROP ROLE {}").format(Identifier(developer)))

    assert row == (False, False)


def test_developer_is_a_member_of_the_group(local):
    token = local.facts["developer_token"]
    client = WorkspaceClient(host=local.url, token=token, auth_type="pat")

    groups = client.current_user.me().groups or []

    assert [group.display for group in groups] == [local.facts["group"]]


def test_state_of_an_earlier_version_loads_without_the_developer(tmp_path):
    store, file = StateStore(tmp_path), tmp_path / "state.json"
    saved = WorkspaceState()
    store.save(saved)
    fields = json.loads(file.read_text())
    for name in ("developer", "developer_token", "client_secret_id"):
        del fields[name]
    file.write_text(json.dumps(fields))

    loaded = store.load()

    assert loaded.owner == saved.owner
    assert loaded.developer.startswith("developer-")


@pytest.mark.parametrize("postgres", VERSIONS)
def test_owner_can_share_tables_through_a_role(postgres):
    """
    The owner needs no superuser to hand tables over, before and after PostgreSQL 16.

    Since version 16, CREATEROLE alone does not permit it: the owner needs a membership,
    with ADMIN, INHERIT and SET, in the roles that ``databricks_create_role`` creates.
    """
    with LocalLakebase.start("--postgres", postgres, "--grants", "guide") as emulator:
        facts = emulator.facts
        names = {
            "developer": Identifier(facts["developer"]),
            "app": Identifier(facts["service_principal"]),
        }

        def run(user, *statements):
            with open_session(emulator, user=user) as session:
                for statement in statements:
                    session.execute(SQL(statement).format(**names))

        owner, developer = facts["owner"], facts["developer"]
        with open_session(emulator, user=owner) as session:
            create_role = "SELECT databricks_create_role(%s, 'USER')"
            session.execute(create_role, (developer,))
            with pytest.raises(errors.DuplicateObject, match="already exists"):
                session.execute(create_role, (developer,))
        run(
            owner,
            "CREATE ROLE shared NOLOGIN",
            "GRANT CREATE, USAGE ON SCHEMA public TO shared, {developer}",
            "GRANT shared TO {app}, {developer}, CURRENT_USER",
            "CREATE TABLE by_owner (id serial)",
            "ALTER TABLE by_owner OWNER TO shared",
        )
        run(developer, "CREATE TABLE by_developer (id serial)")
        run(owner, "REASSIGN OWNED BY {developer} TO shared")
        run(
            facts["service_principal"],
            "ALTER TABLE by_owner ADD COLUMN a int",
            "ALTER TABLE by_developer ADD COLUMN a int",
        )


@pytest.mark.parametrize("postgres", VERSIONS)
def test_databricks_superuser_may_grant_privileges_but_not_change_tables(postgres):
    with LocalLakebase.start("--postgres", postgres) as emulator:
        facts = emulator.facts
        native = {
            "user": facts["native_user"],
            "password": facts["native_password"],
        }
        role = Identifier(facts["native_user"])
        with psycopg.connect(
            host=facts["postgres_socket"].rpartition("/")[0],
            port=facts["postgres_socket"].rpartition(".")[2],
            user="cloud_admin",
            dbname=facts["database"],
            autocommit=True,
        ) as admin:
            admin.execute(SQL("GRANT databricks_superuser TO {}").format(role))
        with open_session(emulator, user=facts["owner"]) as session:
            session.execute("CREATE TABLE owned (id int)")
        with open_session(emulator, **native) as session:
            session.execute("INSERT INTO owned VALUES (1)")
            # PostgreSQL only warns if it grants nothing.
            session.execute("GRANT CREATE ON SCHEMA public TO pg_monitor")
            database = Identifier(facts["database"])
            grant = SQL("GRANT CREATE ON DATABASE {} TO pg_monitor").format(database)
            session.execute(grant)
            granted = session.execute(
                "SELECT has_schema_privilege('pg_monitor', 'public', 'CREATE'), "
                "has_database_privilege('pg_monitor', current_database(), 'CREATE')"
            ).fetchone()
            with pytest.raises(errors.InsufficientPrivilege, match="must be owner"):
                session.execute("ALTER TABLE owned ADD COLUMN a int")

    assert granted == (True, True)


def test_owner_may_not_act_for_the_role_of_an_app():
    """The platform creates this role, so only the app can hand its tables over."""
    options = "--postgres", "embedded", "--grants", "app"
    with LocalLakebase.start(*options) as emulator:
        principal = Identifier(emulator.facts["service_principal"])
        with open_session(emulator) as session:
            session.execute("CREATE SCHEMA own CREATE TABLE by_app (id int)")
        with open_session(emulator, user=emulator.facts["owner"]) as session:
            for statement in ("SET ROLE {}", "REASSIGN OWNED BY {} TO CURRENT_USER"):
                with pytest.raises(errors.InsufficientPrivilege):
                    session.execute(SQL(statement).format(principal))


@pytest.mark.parametrize("postgres", VERSIONS)
def test_owner_can_revoke_the_privileges_of_the_guide(postgres):
    """The default privileges are those for the tables that the owner creates."""
    options = "--postgres", postgres, "--grants", "guide"
    with LocalLakebase.start(*options) as emulator:
        principal = emulator.facts["service_principal"]
        select = (
            "SELECT has_table_privilege(%s, 'made', 'INSERT'), (SELECT count(*) "
            "FROM pg_namespace, aclexplode(nspacl) WHERE grantee::regrole::text = %s)"
        )
        with open_session(emulator, user=emulator.facts["owner"]) as session:
            session.execute("CREATE TABLE made (id int)")
            params = principal, f'"{principal}"'
            before = session.execute(select, params).fetchone()
            revoke = "REVOKE ALL ON SCHEMA public FROM {}"
            session.execute(SQL(revoke).format(Identifier(principal)))
            after = session.execute(select, params).fetchone()

    assert (before, after) == ((True, 1), (True, 0))
