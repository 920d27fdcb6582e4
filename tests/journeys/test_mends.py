"""
Each fault of the service: the ORM's error, the check's verdict, and the mend at work.

On a local Lakebase of its own, whose roles may be broken. Where a mend is SQL, it is
taken from the error's own text and run as it stands there.
"""

import json
import re
import urllib.request
from typing import Any

import pytest
from django.db import OperationalError

from django_lakebase.connection import LakebaseError
from django_lakebase.diagnosis import Diagnosis, Status
from django_lakebase.local.client import LocalLakebase
from tests.sessions import dialled
from tests.support import forget_all, one, settings_for


@pytest.fixture(scope="module")
def patient():
    """Give the local Lakebase that is broken and mended."""
    with LocalLakebase.start() as own:
        yield own


@pytest.fixture
def connect(patient, local, new_wrapper):
    """Give a function that makes a connection to the patient."""

    def make(**settings):
        base = settings_for(patient)
        options = {**base["OPTIONS"], "connect_budget": 1.5}
        settings = {"HOST": patient.facts["host"], **base, **settings}
        return new_wrapper("patient", **{**settings, "OPTIONS": options})

    yield make
    patient.clear_faults()


def as_owner(patient, sql):
    """Run *sql* as the project's owner."""
    with dialled(patient, user=patient.facts["owner"]) as session:
        for statement in filter(str.strip, sql.split(";")):
            session.execute(statement)


def run_the_guide_s_sql(patient, error):
    """Make the role as the error says."""
    run_all(patient, re.findall(r"run: (CREATE EXTENSION .*;)", str(error)))


def replace_the_role(patient, error):
    """Replace the role as the error says; the second time there is an old one."""
    role = patient.facts["service_principal"]
    run_all(patient, re.findall(r"run: (ALTER ROLE .*;)", str(error)))
    as_owner(patient, f'DROP OWNED BY "{role} old"; DROP ROLE "{role} old"')


def run_all(patient, found):
    """Run the statements of the one mend that was *found*, in its two parts."""
    [sql] = found
    as_owner(patient, sql.replace("Then, in the database:", ""))


def run_the_grant(patient, error):
    """Grant what the error names."""
    [sql] = re.findall(r"GRANT CONNECT .*?;", str(error))
    as_owner(patient, sql)


def enable(patient, error):
    """Enable the endpoint through the API, as the project's page does."""
    url = f"{patient.url}/api/2.0/postgres/{patient.facts['endpoint']}"
    request = urllib.request.Request(
        f"{url}?update_mask=spec.disabled",
        json.dumps({"spec": {"disabled": False}}).encode(),
        {"Authorization": f"Bearer {patient.facts['owner_token']}"},
        method="PATCH",
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def wait(patient, error):
    """Be done with what others mend, or what passes by itself."""
    patient.clear_faults()


MENDS: list[tuple[Any, ...]] = [
    # What the API does.
    ("api-down", {}, "api-unreachable", "sdk-login", wait),
    ("api-silent", {}, "api-unreachable", "sdk-login", wait),
    ("api-5xx", {}, "api-unreachable", "sdk-login", wait),
    ("api-5xx", {"status": 500}, "api-unreachable", "sdk-login", wait),
    ("api-429", {"retry_after": 0}, "api-throttled", "credential", wait),
    ("api-malformed", {"shape": "html"}, "answer-unusable", "credential", wait),
    ("api-malformed", {"shape": "text"}, "answer-unusable", "credential", wait),
    ("api-malformed", {"shape": "cut-off"}, "answer-unusable", "credential", wait),
    ("api-malformed", {"shape": "list"}, "answer-unusable", "credential", wait),
    ("api-malformed", {"shape": "nothing"}, "empty-credential", "credential", wait),
    ("empty-credential", {}, "empty-credential", "credential", wait),
    ("no-workspace-access", {}, "workspace-access-missing", "identity", wait),
    ("dead-token", {}, "token-unaccepted", "identity", wait),
    ("secret-revoked", {}, "bad-client-secret", "sdk-login", wait),
    ("ip-blocked", {"where": "api"}, "ip-blocked", "sdk-login", wait),
    # What the gateway and the endpoint do.
    ("ip-blocked", {"where": "login"}, "address-refused", "login", wait),
    ("suspend", {"wake": 60}, "waking", "login", wait),
    ("starting", {"seconds": 0}, "waking", "login", wait),
    ("endpoint-disabled", {}, "endpoint-disabled", "endpoint", enable),
    ("too-many-connections", {}, "too-many-connections", "login", wait),
    # What is wrong with the role.
    ("role-missing", {}, "role-missing", "login", run_the_guide_s_sql),
    ("role-unlabelled", {}, "wrong-user", "login", replace_the_role),
    ("no-grants", {}, "permission-denied", "login", run_the_grant),
]


@pytest.mark.parametrize(
    ("fault", "settings", "failure_id", "step", "mend"),
    MENDS,
    ids=[f"{m[0]}-{'-'.join(map(str, m[1].values()))}".rstrip("-") for m in MENDS],
)
def test_the_mend_mends(connect, patient, fault, settings, failure_id, step, mend):
    """The error and the check say the same, and doing it makes both green."""
    patient.set_fault(fault, **settings)
    wrapper = connect()

    with pytest.raises(OperationalError) as caught:
        one(wrapper, "SELECT 1")
    steps = {found.id: found for found in Diagnosis(wrapper).run()}
    failed = [found for found in steps.values() if found.status is Status.FAIL]
    mend(patient, caught.value)
    # As another process would find it: nobody waits for a Retry-After of before.
    forget_all()
    again = list(Diagnosis(connect()).run())
    row = one(connect(), "SELECT 1")

    assert isinstance(caught.value, LakebaseError)
    assert caught.value.failure_id == failure_id
    assert caught.value.__cause__ is not None
    assert 'DATABASES["patient"]' in str(caught.value)
    assert [found.id for found in failed] == [step]
    assert failed[0].mend == caught.value.mend
    assert [s for s in again if s.status in (Status.FAIL, Status.SKIPPED)] == []
    assert row == 1


def test_an_endpoint_that_moved_is_found_again(connect, patient):
    """With HOST the error says to remove it; without, nothing is to be done."""
    following = connect(HOST="")
    assert one(following, "SELECT 1") == 1
    following.close()
    with patient.fault("endpoint-moved"):
        with pytest.raises(OperationalError) as caught:
            one(connect(), "SELECT 1")
        row = one(following, "SELECT 1")

    assert caught.value.failure_id == "wrong-host"
    assert "or remove it" in str(caught.value)
    assert row == 1
    following.close()
    assert one(following, "SELECT 1") == 1


def test_a_token_that_dies_early_is_replaced(connect, patient):
    """Whatever its expire_time said: one refusal, and no error."""
    wrapper = connect()
    with patient.fault("token-life", seconds=1):
        one(wrapper, "SELECT pg_sleep(1.1)")
        wrapper.close()
        patient.reset_counters()

        assert one(wrapper, "SELECT 1") == 1

    assert patient.counters()["refusals"] == 1
    assert patient.counters()["credentials_issued"] == 1


def test_texts_of_another_language_are_waited_out(connect, patient):
    """A server that starts may say so in its own: one probe, then patience."""
    patient.reset_counters()

    with patient.fault("refuse-logins", message="german", count=3):
        assert one(connect(), "SELECT 1") == 1

    assert patient.counters()["refusals"] == 3


def test_texts_of_another_language_are_quoted_in_the_end(connect, patient):
    """Within the budget, for whoever can read them."""
    with (
        patient.fault("refuse-logins", message="german"),
        pytest.raises(LakebaseError) as caught,
    ):
        one(connect(), "SELECT 1")

    assert caught.value.failure_id == "unexplained"
    assert "das Datenbanksystem startet" in str(caught.value)


@pytest.mark.parametrize("dialect", ["proxy", "postgres"])
def test_every_dialect_is_understood(new_wrapper, local, dialect):
    """Whoever refuses an expired token, it is replaced; the rest has its mend."""
    with LocalLakebase.start("--dialect", dialect) as own:
        settings = {**settings_for(own), "HOST": own.facts["host"]}

        def connect():
            return new_wrapper("dialect", **settings)

        wrapper = connect()
        with own.fault("token-life", seconds=1):
            one(wrapper, "SELECT pg_sleep(1.1)")
            wrapper.close()
            assert one(wrapper, "SELECT 1") == 1
        for fault in ("role-missing", "role-unlabelled"):
            with own.fault(fault), pytest.raises(LakebaseError) as caught:
                one(connect(), "SELECT 1")
            assert "databricks_create_role" in str(caught.value)


def test_a_replaced_role_still_has_its_tables(connect, patient):
    """What the mend moves over is not lost."""
    with connect().cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 7 AS seven")
    patient.set_fault("role-unlabelled")

    with pytest.raises(LakebaseError) as caught:
        one(connect(), "SELECT 1")
    replace_the_role(patient, caught.value)
    with connect().cursor() as cursor:
        cursor.execute("ALTER TABLE kept RENAME TO kept_too")
        cursor.execute("SELECT seven FROM kept_too")
        [row] = cursor.fetchall()
        cursor.execute("DROP TABLE kept_too")

    assert row == (7,)
