"""
Each fault of the service: the error, the verdict of lakebase_check, and the hint.

Runs on a separate local Lakebase, so that tests may break its roles. Where a hint is
SQL, the test takes the statements from the error and runs them unchanged.
"""

import json
import re
import urllib.request
from typing import Any

import pytest
from django.db import OperationalError

from django_lakebase.diagnosis.step import Status
from django_lakebase.diagnosis.steps import Diagnosis
from django_lakebase.exceptions import LakebaseError
from django_lakebase.local.client import LocalLakebase
from tests.helpers.credential_cache import forget_credentials
from tests.helpers.local_settings import settings_for
from tests.helpers.plain_psycopg import open_session
from tests.helpers.queries import fetch_value


@pytest.fixture(scope="module")
def broken():
    """Yield the local Lakebase whose roles the tests break."""
    with LocalLakebase.start() as own:
        yield own


@pytest.fixture
def connect(broken, local, new_wrapper):
    """Yield a function that makes a connection to the broken Lakebase."""

    def make(**settings):
        base = settings_for(broken)
        options = {**base["OPTIONS"], "connect_budget": 1.5}
        settings = {"HOST": broken.facts["host"], **base, **settings}
        return new_wrapper("broken", **{**settings, "OPTIONS": options})

    yield make
    broken.clear_faults()


def run_as_owner(broken, sql):
    """Run *sql* as the owner of the project."""
    with open_session(broken, user=broken.facts["owner"]) as session:
        for statement in filter(str.strip, sql.split(";")):
            session.execute(statement)


def create_role(broken, error):
    """Create the role as the error says."""
    run_statements(broken, re.findall(r"run: (CREATE EXTENSION .*;)", str(error)))


def replace_role(broken, error):
    """Replace the role as the error says, and drop the old one."""
    role = broken.facts["service_principal"]
    run_statements(broken, re.findall(r"run: (ALTER ROLE .*;)", str(error)))
    old = f'"{role} old"'
    # REVOKE and DROP OWNED revoke what one of several grantors has granted.
    revoke = "".join(
        f"SET ROLE {grantor}; REVOKE ALL ON SCHEMA public FROM {old}; RESET ROLE;"
        for grantor in ("databricks_superuser", "pg_database_owner")
    )
    run_as_owner(broken, f"DROP OWNED BY {old}; {revoke} DROP ROLE {old}")


def run_statements(broken, found):
    """Run the only *found* text, which has two parts."""
    [sql] = found
    run_as_owner(broken, sql.replace("Then, in the database:", ""))


def run_grant(broken, error):
    """Run the GRANT of the error."""
    [sql] = re.findall(r"GRANT CONNECT .*?;", str(error))
    run_as_owner(broken, sql)


def enable_endpoint(broken, error):
    """Enable the endpoint through the API, as the project's page does."""
    url = f"{broken.url}/api/2.0/postgres/{broken.facts['endpoint']}"
    request = urllib.request.Request(
        f"{url}?update_mask=spec.disabled",
        json.dumps({"spec": {"disabled": False}}).encode(),
        {"Authorization": f"Bearer {broken.facts['owner_token']}"},
        method="PATCH",
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def wait_for_recovery(broken, error):
    """Clear the faults that end without the user."""
    broken.clear_faults()


FAULTS: list[tuple[Any, ...]] = [
    # Faults of the API.
    ("api-down", {}, "api-unreachable", "sdk-login", wait_for_recovery),
    ("api-hang", {}, "api-unreachable", "sdk-login", wait_for_recovery),
    ("api-5xx", {}, "api-unreachable", "sdk-login", wait_for_recovery),
    ("api-5xx", {"status": 500}, "api-unreachable", "sdk-login", wait_for_recovery),
    ("api-429", {"retry_after": 0}, "api-throttled", "credential", wait_for_recovery),
    (
        "api-malformed",
        {"body": "html"},
        "response-unusable",
        "credential",
        wait_for_recovery,
    ),
    (
        "api-malformed",
        {"body": "text"},
        "response-unusable",
        "credential",
        wait_for_recovery,
    ),
    (
        "api-malformed",
        {"body": "truncated"},
        "response-unusable",
        "credential",
        wait_for_recovery,
    ),
    (
        "api-malformed",
        {"body": "list"},
        "response-unusable",
        "credential",
        wait_for_recovery,
    ),
    (
        "api-malformed",
        {"body": "empty"},
        "empty-credential",
        "credential",
        wait_for_recovery,
    ),
    ("empty-credential", {}, "empty-credential", "credential", wait_for_recovery),
    (
        "no-workspace-access",
        {},
        "workspace-access-missing",
        "identity",
        wait_for_recovery,
    ),
    ("api-token-rejected", {}, "login-token-rejected", "identity", wait_for_recovery),
    ("secret-revoked", {}, "bad-client-secret", "sdk-login", wait_for_recovery),
    ("ip-blocked", {"scope": "api"}, "ip-blocked", "sdk-login", wait_for_recovery),
    # Faults of the gateway and the endpoint.
    ("ip-blocked", {"scope": "login"}, "address-rejected", "login", wait_for_recovery),
    ("suspend", {"wake_seconds": 60}, "waking", "login", wait_for_recovery),
    ("server-starting", {"seconds": 0}, "waking", "login", wait_for_recovery),
    ("endpoint-disabled", {}, "endpoint-disabled", "endpoint", enable_endpoint),
    ("too-many-connections", {}, "too-many-connections", "login", wait_for_recovery),
    # Faults of the role.
    ("role-missing", {}, "role-missing", "login", create_role),
    ("role-without-label", {}, "wrong-user", "login", replace_role),
    ("grants-revoked", {}, "permission-denied", "login", run_grant),
]


@pytest.mark.parametrize(
    ("fault", "settings", "failure_id", "step", "follow"),
    FAULTS,
    ids=[f"{f[0]}-{'-'.join(map(str, f[1].values()))}".rstrip("-") for f in FAULTS],
)
def test_following_the_hint_fixes_the_connection(
    connect, broken, fault, settings, failure_id, step, follow
):
    """The error and lakebase_check name the same failure and hint."""
    broken.set_fault(fault, **settings)
    wrapper = connect()

    with pytest.raises(OperationalError) as caught:
        fetch_value(wrapper, "SELECT 1")
    steps = {found.id: found for found in Diagnosis(wrapper).run()}
    failed = [found for found in steps.values() if found.status is Status.FAIL]
    follow(broken, caught.value)
    # As in a new process: no Retry-After applies.
    forget_credentials()
    again = list(Diagnosis(connect()).run())
    row = fetch_value(connect(), "SELECT 1")

    assert isinstance(caught.value, LakebaseError)
    assert caught.value.failure_id == failure_id
    assert caught.value.__cause__ is not None
    assert 'DATABASES["broken"]' in str(caught.value)
    assert [found.id for found in failed] == [step]
    assert failed[0].hint == caught.value.hint
    assert [s for s in again if s.status in (Status.FAIL, Status.SKIPPED)] == []
    assert row == 1


def test_moved_endpoint_is_found_without_host(connect, broken):
    """With HOST, the error says to remove it."""
    following = connect(HOST="")
    assert fetch_value(following, "SELECT 1") == 1
    following.close()
    with broken.fault("endpoint-moved"):
        with pytest.raises(LakebaseError) as caught:
            fetch_value(connect(), "SELECT 1")
        row = fetch_value(following, "SELECT 1")

    assert caught.value.failure_id == "wrong-host"
    assert "you can also remove it" in str(caught.value)
    assert row == 1
    following.close()
    assert fetch_value(following, "SELECT 1") == 1


def test_token_that_expires_early_is_replaced_after_one_rejection(connect, broken):
    wrapper = connect()
    with broken.fault("short-token-lifetime", seconds=1):
        fetch_value(wrapper, "SELECT pg_sleep(1.1)")
        wrapper.close()
        broken.reset_counters()

        assert fetch_value(wrapper, "SELECT 1") == 1

    assert broken.fetch_counters()["rejections"] == 1
    assert broken.fetch_counters()["credentials_issued"] == 1


def test_messages_in_another_language_are_retried_after_one_probe(connect, broken):
    """A server that starts may send messages in its own language."""
    broken.reset_counters()

    with broken.fault("reject-logins", message="german", count=3):
        assert fetch_value(connect(), "SELECT 1") == 1

    assert broken.fetch_counters()["rejections"] == 3


def test_message_in_another_language_is_quoted_after_the_budget(connect, broken):
    with (
        broken.fault("reject-logins", message="german"),
        pytest.raises(LakebaseError) as caught,
    ):
        fetch_value(connect(), "SELECT 1")

    assert caught.value.failure_id == "unexplained"
    assert "das Datenbanksystem startet" in str(caught.value)


@pytest.mark.parametrize("dialect", ["proxy", "postgres"])
def test_each_dialect_of_the_service_is_recognised(new_wrapper, local, dialect):
    """Expired tokens are replaced, and roles get their hints."""
    with LocalLakebase.start("--dialect", dialect) as own:
        settings = {**settings_for(own), "HOST": own.facts["host"]}

        def connect():
            return new_wrapper("dialect", **settings)

        wrapper = connect()
        with own.fault("short-token-lifetime", seconds=1):
            fetch_value(wrapper, "SELECT pg_sleep(1.1)")
            wrapper.close()
            assert fetch_value(wrapper, "SELECT 1") == 1
        for fault in ("role-missing", "role-without-label"):
            with own.fault(fault), pytest.raises(LakebaseError) as caught:
                fetch_value(connect(), "SELECT 1")
            assert "databricks_create_role" in str(caught.value)


def test_hint_to_replace_a_role_keeps_its_tables(connect, broken):
    with connect().cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    broken.set_fault("role-without-label")

    with pytest.raises(LakebaseError) as caught:
        fetch_value(connect(), "SELECT 1")
    replace_role(broken, caught.value)
    with connect().cursor() as cursor:
        cursor.execute("ALTER TABLE kept RENAME TO kept_too")
        cursor.execute("SELECT seven FROM kept_too")
        [row] = cursor.fetchall()
        cursor.execute("DROP TABLE kept_too")

    assert row == (7,)
