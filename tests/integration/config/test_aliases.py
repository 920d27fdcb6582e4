"""Several databases in one project, which share no settings, logins or hosts."""

import pytest

from django_lakebase.exceptions import LakebaseError
from django_lakebase.local.client import LocalLakebase
from tests.helpers.local_settings import settings_for
from tests.helpers.queries import fetch_value

pytestmark = pytest.mark.every_environment


@pytest.fixture(scope="module")
def second():
    """Yield another workspace with another endpoint."""
    with LocalLakebase.start() as local:
        yield local


def user_and_server(wrapper):
    """Return who is logged in to which server."""
    with wrapper.cursor() as cursor:
        cursor.execute(
            "SELECT current_user, system_identifier FROM pg_control_system()"
        )
        return cursor.fetchone()


def test_aliases_use_two_workspaces_without_host(new_wrapper, local, second):
    """No variable of one alias applies to the other."""
    here = new_wrapper("here")
    there = new_wrapper("there", **settings_for(second))

    assert user_and_server(here)[0] == local.facts["service_principal"]
    assert user_and_server(there)[0] == second.facts["service_principal"]
    assert user_and_server(here)[1] != user_and_server(there)[1]
    assert there.connection.info.host == second.facts["host"]


def test_aliases_of_two_workspaces_have_two_test_databases(new_wrapper, local, second):
    """Django would otherwise take the second for a mirror of the first."""
    here = new_wrapper("here", **settings_for(local))
    there = new_wrapper("there", **settings_for(second))

    assert here.creation.test_db_signature() != there.creation.test_db_signature()


def test_alias_may_log_in_as_another_user_of_the_endpoint(new_wrapper, local):
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


def test_missing_host_and_user_are_fetched_once(new_wrapper, local, monkeypatch):
    for name in ("PGHOST", "PGUSER"):
        monkeypatch.delenv(name)
    monkeypatch.delenv("DATABRICKS_CLIENT_ID")
    monkeypatch.delenv("DATABRICKS_CLIENT_SECRET")
    monkeypatch.setenv("DATABRICKS_TOKEN", local.facts["owner_token"])

    for _ in range(2):
        wrapper = new_wrapper()
        assert fetch_value(wrapper, "SELECT current_user") == local.facts["owner"]

    requests = local.fetch_counters()["requests"]
    assert requests[f"/api/2.0/postgres/{local.facts['endpoint']}"] == 1
    assert requests["/api/2.0/preview/scim/v2/Me"] == 1


def test_native_password_sends_no_request_to_the_workspace(new_wrapper, local):
    wrapper = new_wrapper(
        HOST=local.facts["host"],
        USER=local.facts["native_user"],
        PASSWORD=local.facts["native_password"],
        OPTIONS={"hostaddr": local.facts["hostaddr"]},
    )

    assert fetch_value(wrapper, "SELECT current_user") == local.facts["native_user"]
    assert local.fetch_counters()["requests"] == {}
    assert wrapper.lifetime is None


def test_wrong_native_password_error_names_the_setting(new_wrapper, local):
    """And not the workspace."""
    wrapper = new_wrapper(
        HOST=local.facts["host"],
        USER=local.facts["native_user"],
        PASSWORD="wrong",
        OPTIONS={"hostaddr": local.facts["hostaddr"]},
    )

    with pytest.raises(LakebaseError, match="PASSWORD") as caught:
        fetch_value(wrapper, "SELECT 1")

    assert caught.value.failure_id == "password-rejected"
    assert local.fetch_counters()["requests"] == {}


def test_workspace_may_be_the_import_path_of_a_callable(new_wrapper, local):
    wrapper = new_wrapper(
        USER=local.facts["owner"],
        OPTIONS={"workspace": "tests.helpers.credential_cache.owner_client"},
    )
    wrapper.settings_dict["OPTIONS"]["hostaddr"] = local.facts["hostaddr"]

    assert fetch_value(wrapper, "SELECT current_user") == local.facts["owner"]
