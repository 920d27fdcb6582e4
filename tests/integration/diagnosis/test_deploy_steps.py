"""Deployment steps about tables and limits, and the SQL of their hints."""

import contextlib
import re

import pytest
from psycopg.sql import SQL, Identifier

from django_lakebase.diagnosis.deploy import DEPLOY_STEPS
from django_lakebase.diagnosis.limits import check_limits
from django_lakebase.diagnosis.session import Session
from django_lakebase.diagnosis.step import Status
from django_lakebase.diagnosis.steps import Diagnosis
from django_lakebase.diagnosis.tables import check_replica_identity, check_row_security
from tests.helpers.local_settings import settings_for
from tests.helpers.plain_psycopg import open_session

# Tables of installed apps of the test suite.
NOTE, MEMBER = "app_note", "app_member"
OWN_INDEX = (
    "CREATE UNIQUE INDEX own ON app_note (id); "
    "ALTER TABLE app_note REPLICA IDENTITY USING INDEX own"
)


@pytest.fixture
def connect(local, database, new_wrapper):
    """Yield a function that returns the Session of a user."""
    with contextlib.ExitStack() as stack:

        def new(user):
            connection = open_session(local, user=user, dbname=database)
            stack.enter_context(contextlib.closing(connection))
            return Session(wrapper=new_wrapper(NAME=database), connection=connection)

        yield new


@pytest.fixture
def app(connect, local):
    """Return the Session of the service principal, which owns two tables."""
    session = connect(local.facts["service_principal"])
    for name in (NOTE, MEMBER):
        table = Identifier(name)
        columns = SQL("CREATE TABLE {} (id int PRIMARY KEY, text text)").format(table)
        session.connection.execute(columns)
    return session


@pytest.fixture
def owner(connect, local):
    """Return the Session of the owner of the project, who has BYPASSRLS."""
    return connect(local.facts["owner"])


def add_policy(session, *tables):
    for table in tables:
        session.connection.execute(f"CREATE POLICY own ON {table} USING (id = 1)")


def correct(connect, outcome):
    """Execute the statements of the findings as the roles that they name."""
    for finding in outcome.findings:
        connection = connect(finding.role).connection
        for statement in finding.statements:
            connection.execute(statement)


def ids_of(outcome):
    return [finding.id for finding in outcome.findings]


# row-security


def test_tables_without_policies_need_no_row_security(app):
    outcome = check_row_security(app)

    assert (outcome.status, outcome.detail) == (Status.OK, "no table has policies")


def test_policies_of_own_table_do_nothing_until_corrected(app, connect):
    """They are not enabled, and the owner is exempt. Other tables stay as they are."""
    add_policy(app, NOTE)
    app.connection.execute("INSERT INTO app_note VALUES (1, ''), (2, '')")

    outcome = check_row_security(app)
    correct(connect, outcome)
    corrected = check_row_security(app)

    assert outcome.status is Status.WARN
    assert ids_of(outcome) == ["row-security-disabled", "row-security-not-forced"]
    assert f'"{NOTE}"' in outcome.detail
    assert MEMBER not in outcome.detail
    assert (corrected.status, corrected.findings) == (Status.OK, ())
    assert app.fetch("SELECT id FROM app_note") == [(1,)]


def test_owner_is_also_exempt_from_enabled_policies(app, connect):
    add_policy(app, NOTE)
    app.connection.execute(f"ALTER TABLE {NOTE} ENABLE ROW LEVEL SECURITY")

    outcome = check_row_security(app)

    assert ids_of(outcome) == ["row-security-not-forced"]


def test_member_of_the_owner_is_exempt_as_the_owner_is(app, connect, local):
    """Unless it does not inherit the owner's rights; PostgreSQL decides the same."""
    add_policy(app, NOTE)
    app.connection.execute(f"ALTER TABLE {NOTE} ENABLE ROW LEVEL SECURITY")
    app.connection.execute("INSERT INTO app_note VALUES (2, '')")
    owner, member = local.facts["owner"], "rls_member"
    with open_session(local, user=owner) as session:
        session.execute(f"CREATE ROLE {member} LOGIN PASSWORD 'open sesame'")
    try:
        native = open_session(
            local, user=member, password="open sesame", dbname=app_database(app)
        )
        with contextlib.closing(native):
            other = Session(wrapper=app.wrapper, connection=native)
            app.connection.execute(f"GRANT SELECT ON {NOTE} TO {member}")
            seen = [other.fetch("SELECT id FROM app_note")]
            found = [ids_of(check_row_security(other))]
            principal = Identifier(local.facts["service_principal"])
            with open_session(local, user=owner) as session:
                grant = SQL("GRANT {} TO {}").format(principal, Identifier(member))
                session.execute(grant)
            seen.append(other.fetch("SELECT id FROM app_note"))
            found.append(ids_of(check_row_security(other)))
    finally:
        app.connection.execute(f"REVOKE ALL ON {NOTE} FROM {member}")
        with open_session(local, user=owner) as session:
            session.execute(f"DROP ROLE {member}")

    assert seen == [[], [(2,)]]
    assert found == [[], ["row-security-not-forced"]]


def app_database(session):
    return session.connection.info.dbname


def test_role_with_bypassrls_is_reported_with_the_owner_of_the_database(
    app, owner, local
):
    add_policy(app, NOTE)
    app.connection.execute(f"ALTER TABLE {NOTE} ENABLE ROW LEVEL SECURITY")

    outcome = check_row_security(owner)

    role = local.facts["owner"]
    [finding] = [f for f in outcome.findings if f.id == "row-security-bypassed"]
    assert finding.status is Status.WARN
    assert finding.role == local.facts["service_principal"]
    assert finding.statements == (f'ALTER ROLE "{role}" NOBYPASSRLS;',)


# replica-identity


def test_primary_key_is_enough_to_replicate_changes(app):
    outcome = check_replica_identity(app)

    assert (outcome.status, outcome.findings) == (Status.OK, ())
    assert outcome.detail.startswith("0 of 2 tables have REPLICA IDENTITY FULL")


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE app_note REPLICA IDENTITY NOTHING",
        "ALTER TABLE app_note DROP CONSTRAINT app_note_pkey",
        f"{OWN_INDEX}; DROP INDEX own",
    ],
    ids=["nothing", "no-primary-key", "no-index"],
)
def test_table_without_replica_identity_is_reported_until_corrected(
    app, connect, change
):
    """It is information, and never a warning."""
    app.connection.execute(change)

    outcome = check_replica_identity(app)
    correct(connect, outcome)
    corrected = check_replica_identity(app)

    assert (outcome.status, ids_of(outcome)) == (
        Status.OK,
        ["replica-identity-missing"],
    )
    assert f'"{NOTE}"' in outcome.detail
    assert MEMBER not in outcome.detail
    assert corrected.findings == ()
    assert corrected.detail.startswith("1 of 2 tables")


def test_index_as_replica_identity_is_enough(app):
    app.connection.execute(OWN_INDEX)

    assert check_replica_identity(app).findings == ()


def test_tables_of_other_schemas_and_programs_are_ignored(app):
    app.connection.execute(
        "CREATE TABLE another (id int); CREATE SCHEMA other; "
        "CREATE TABLE other.app_note (id int)"
    )

    outcome = check_replica_identity(app)

    assert outcome.findings == ()
    assert "of 2 tables" in outcome.detail


# limits


def test_limits_count_the_connections_of_other_roles(app, owner):
    """Without the right to see what they do."""
    outcome = check_limits(app)

    assert outcome.status is Status.OK
    assert int(outcome.detail.partition(" of ")[0]) >= 2


@pytest.mark.parametrize("kind", ["ROLE", "DATABASE"])
def test_limit_that_is_nearly_reached_is_a_warning_until_corrected(
    app, owner, local, kind, database
):
    name = local.facts["service_principal"] if kind == "ROLE" else database
    admin = owner if kind == "ROLE" else app
    alter = SQL(f"ALTER {kind} {{}} CONNECTION LIMIT {{}}")
    admin.connection.execute(alter.format(Identifier(name), 1))
    try:
        outcome = check_limits(app)
        [finding] = outcome.findings
        for statement in finding.statements:
            admin.connection.execute(statement)
        corrected = check_limits(app)
    finally:
        admin.connection.execute(alter.format(Identifier(name), -1))

    assert (outcome.status, finding.id) == (
        Status.WARN,
        "connections-nearly-exhausted",
    )
    assert f'{kind.lower()} "{name}"' in finding.detail
    assert finding.role == local.facts["service_principal"]
    assert corrected.findings == ()


@pytest.mark.parametrize("fault", ["no-secret-access", "api-down"])
def test_unknown_expiry_of_the_client_secret_is_no_warning(app, local, fault):
    with local.fault(fault):
        outcome = check_limits(app)

    assert outcome.status is Status.OK
    assert "the expiry of the client secret is not known (" in outcome.detail


def test_expiry_of_the_client_secret_is_shown(app):
    outcome = check_limits(app)

    assert outcome.status is Status.OK
    assert re.search(
        r"; the client secret expires on .* \(days left: \d+\)", outcome.detail
    )


def test_client_secret_that_expires_soon_is_a_warning(app, local):
    with local.fault("secret-expires", days=20):
        outcome = check_limits(app)

    [finding] = outcome.findings
    assert (outcome.status, finding.id) == (Status.WARN, "client-secret-expires")
    assert "days left: 20" in finding.detail
    assert "set DATABRICKS_CLIENT_SECRET to it" in finding.hint


def test_hint_names_the_setting_that_contains_the_secret(app, local, new_wrapper):
    own = Session(
        wrapper=new_wrapper("own", **settings_for(local)), connection=app.connection
    )
    with local.fault("secret-expires", days=20):
        outcome = check_limits(own)

    assert 'OPTIONS["workspace"]["client_secret"]' in outcome.hint


def test_login_without_client_secret_reports_none(app, local, monkeypatch):
    monkeypatch.delenv("DATABRICKS_CLIENT_ID")
    monkeypatch.delenv("DATABRICKS_CLIENT_SECRET")
    monkeypatch.setenv("DATABRICKS_TOKEN", local.facts["owner_token"])

    outcome = check_limits(app)

    assert outcome.status is Status.OK
    assert "secret" not in outcome.detail


def test_lost_connection_is_not_reported_as_a_bug_of_each_step(
    local, new_wrapper, monkeypatch
):
    """The later steps are skipped, and ``--wait`` tries again."""

    def lose(session):
        with local.fault("reset-connections"):
            return check_limits(session)

    monkeypatch.setitem(DEPLOY_STEPS, "ownership", lose)

    steps = {step.id: step for step in Diagnosis(new_wrapper(), deploy=True).run()}

    assert steps["privileges"].status is Status.OK
    lost = steps["ownership"]
    assert (lost.status, lost.is_transient) == (Status.FAIL, True)
    assert "the connection was lost" in lost.detail
    assert lost.hint == "Run the command again."
    assert {steps[name].status for name in list(steps)[-5:]} == {Status.SKIPPED}
