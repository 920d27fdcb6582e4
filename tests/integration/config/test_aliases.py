"""Several databases in one project: nothing of one gets into another."""

import pytest

from django_lakebase.connection import LakebaseError
from django_lakebase.local.client import LocalLakebase
from tests.helpers.wrappers import fetch_value, settings_for

pytestmark = pytest.mark.every_environment


@pytest.fixture(scope="module")
def second():
    """Give another workspace with another endpoint."""
    with LocalLakebase.start() as local:
        yield local


def where(wrapper):
    """Return who is logged in, and which server it is."""
    with wrapper.cursor() as cursor:
        cursor.execute(
            "SELECT current_user, system_identifier FROM pg_control_system()"
        )
        return cursor.fetchone()


def test_two_workspaces_side_by_side_without_host(new_wrapper, local, second):
    """Settings win by groups: all nine variables of the one do not reach the other."""
    here = new_wrapper("here")
    there = new_wrapper("there", **settings_for(second))

    assert where(here)[0] == local.facts["service_principal"]
    assert where(there)[0] == second.facts["service_principal"]
    assert where(here)[1] != where(there)[1]
    assert there.connection.info.host == second.facts["host"]


def test_two_workspaces_are_two_test_databases(new_wrapper, local, second):
    """Django must not take the second for a mirror of the first."""
    here = new_wrapper("here", **settings_for(local))
    there = new_wrapper("there", **settings_for(second))

    assert here.creation.test_db_signature() != there.creation.test_db_signature()


def test_two_users_of_one_endpoint(new_wrapper, local):
    """An alias may log in as somebody else, with a login of its own."""
    owner = new_wrapper(
        "owner",
        OPTIONS={
            "workspace": {
                "host": local.env["DATABRICKS_HOST"],
                "token": local.facts["owner_token"],
            },
        },
    )

    assert fetch_value(owner, "SELECT current_user") == local.facts["owner"]
    assert fetch_value(new_wrapper(), "SELECT current_user") != local.facts["owner"]


def test_host_and_user_come_from_the_workspace(new_wrapper, local, monkeypatch):
    """With neither in settings nor environment the workspace is asked, once."""
    for name in ("PGHOST", "PGUSER"):
        monkeypatch.delenv(name)
    monkeypatch.delenv("DATABRICKS_CLIENT_ID")
    monkeypatch.delenv("DATABRICKS_CLIENT_SECRET")
    monkeypatch.setenv("DATABRICKS_TOKEN", local.facts["owner_token"])

    for _ in range(2):
        wrapper = new_wrapper()
        assert fetch_value(wrapper, "SELECT current_user") == local.facts["owner"]

    requests = local.counters()["requests"]
    assert requests[f"/api/2.0/postgres/{local.facts['endpoint']}"] == 1
    assert requests["/api/2.0/preview/scim/v2/Me"] == 1


def test_a_native_password_asks_no_workspace(new_wrapper, local):
    """PASSWORD in settings is a plain PostgreSQL login."""
    wrapper = new_wrapper(
        HOST=local.facts["host"],
        USER=local.facts["native_user"],
        PASSWORD=local.facts["native_password"],
        OPTIONS={"hostaddr": local.facts["hostaddr"]},
    )

    assert fetch_value(wrapper, "SELECT current_user") == local.facts["native_user"]
    assert local.counters()["requests"] == {}
    assert wrapper.lease is None


def test_a_wrong_native_password_names_password(new_wrapper, local):
    """The error is about the setting, and the workspace is left out of it."""
    wrapper = new_wrapper(
        HOST=local.facts["host"],
        USER=local.facts["native_user"],
        PASSWORD="wrong",
        OPTIONS={"hostaddr": local.facts["hostaddr"]},
    )

    with pytest.raises(LakebaseError, match="PASSWORD") as caught:
        fetch_value(wrapper, "SELECT 1")

    assert caught.value.failure_id == "password-refused"
    assert local.counters()["requests"] == {}


def test_a_callable_may_make_the_client(new_wrapper, local):
    """A dotted path leads to a function of the project's own."""
    wrapper = new_wrapper(
        USER=local.facts["owner"],
        OPTIONS={"workspace": "tests.helpers.credentials.owner_client"},
    )
    wrapper.settings_dict["OPTIONS"]["hostaddr"] = local.facts["hostaddr"]

    assert fetch_value(wrapper, "SELECT current_user") == local.facts["owner"]
