"""What Django loads: parameters, time zone, client, creation."""

import pickle
import subprocess
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.test import override_settings
from psycopg.conninfo import conninfo_to_dict

from django_lakebase import __version__
from django_lakebase.base import KEEPALIVES
from django_lakebase.connection import LakebaseError, is_readable
from django_lakebase.login import new_client
from django_lakebase.opening import takes_timezone
from tests.helpers.wrappers import fetch_value


def test_parameters_are_made_without_any_request(new_wrapper, local):
    """Django asks for them at every checkout from a pool."""
    params = new_wrapper().get_connection_params()

    assert params["host"] == local.facts["host"]
    assert local.counters()["requests"] == {}


def test_there_is_never_a_missing_host(new_wrapper, monkeypatch):
    """Psycopg would dial the local socket and hand it the token."""
    monkeypatch.delenv("PGHOST")

    assert "host" in new_wrapper().get_connection_params()


def test_others_who_take_the_parameters_once_connect_with_current_tokens(
    new_wrapper, local
):
    """Procrastinate keeps them for a pool of its own."""
    params = new_wrapper().get_connection_params()
    for _ in range(2):
        with psycopg.connect(**params) as foreign:
            assert foreign.execute("SELECT 1").fetchone() == (1,)
        local.reset_counters()


def test_our_options_do_not_reach_libpq(new_wrapper):
    """It would refuse them."""
    endpoint = "projects/p/branches/b/endpoints/e"
    wrapper = new_wrapper(OPTIONS={"connect_budget": 5, "endpoint": endpoint})

    assert not {"connect_budget", "endpoint"} & set(wrapper.get_connection_params())


def test_keepalives_are_on_unless_the_project_says_otherwise(new_wrapper):
    """Half-open connections end within a minute or so."""
    wrapper = new_wrapper(OPTIONS={"keepalives_idle": 5})

    params = wrapper.get_connection_params()

    assert params["tcp_user_timeout"] == KEEPALIVES["tcp_user_timeout"]
    assert params["keepalives_idle"] == 5


def test_a_lazy_value_keeps_its_secret(new_wrapper):
    """Shown it says what it is, sent it says where to ask."""
    password = new_wrapper("default").get_connection_params()["password"]

    assert repr(password) == '<password of DATABASES["default"], asked for when used>'
    assert str(pickle.loads(pickle.dumps(password))) == str(password)  # noqa: S301 - ours.


def test_a_foreign_caller_gets_our_error_too(new_wrapper, local):
    """str() of the password ends in the same words as a query."""
    password = new_wrapper().get_connection_params()["password"]

    with (
        local.fault("no-workspace-access"),
        pytest.raises(LakebaseError, match="Workspace access"),
    ):
        str(password)


def test_the_time_zone_travels_in_the_startup_packet(new_wrapper):
    """Django's own query after each connect is not needed."""
    wrapper = new_wrapper(TIME_ZONE="Europe/Paris")
    params = wrapper.get_connection_params()
    assert params["options"] == "-c TimeZone=Europe/Paris"

    assert fetch_value(wrapper, "SHOW TimeZone") == "Europe/Paris"


def test_the_projects_own_options_come_first(new_wrapper, monkeypatch):
    """Those of the settings, else those of PGOPTIONS."""
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5MB")

    assert fetch_value(new_wrapper(), "SHOW work_mem") == "5MB"
    own = new_wrapper(OPTIONS={"options": "-c work_mem=6MB"})
    assert fetch_value(own, "SHOW work_mem") == "6MB"


def test_a_time_zone_that_is_refused_is_left_to_django(new_wrapper, monkeypatch):
    """The connection is opened without it once more, and that is remembered."""
    # The engine remembers the refusal for these settings, which no other test has.
    wrapper = new_wrapper(OPTIONS={"application_name": "without a time zone"})
    params = wrapper.get_connection_params()
    params["options"] = params["options"].replace("UTC", "No/Where")
    monkeypatch.setattr(wrapper, "get_connection_params", params.copy)

    assert fetch_value(wrapper, "SHOW TimeZone") == "UTC"

    assert not takes_timezone(wrapper.get_target())
    monkeypatch.undo()
    assert wrapper.get_connection_params()["options"] == ""


@override_settings(USE_TZ=False, TIME_ZONE=None)
def test_without_a_time_zone_none_is_sent(new_wrapper):
    """The server's own stays."""
    assert new_wrapper().get_connection_params()["options"] == ""


def test_settings_given_later_are_filled_when_used(new_wrapper, local):
    """Tests and tools assign settings after the wrapper was made."""
    wrapper = new_wrapper()
    wrapper.settings_dict = {**wrapper.settings_dict, "NAME": "", "HOST": ""}

    assert fetch_value(wrapper, "SELECT current_database()") == local.facts["database"]


def test_assume_role_without_a_pool(new_wrapper, local):
    """As on Django's own backend."""
    principal = local.facts["service_principal"]
    wrapper = new_wrapper(OPTIONS={"assume_role": principal})

    assert fetch_value(wrapper, "SELECT current_user") == principal


def test_a_bad_isolation_level_stays_django_s_error(new_wrapper):
    """It is no matter of connecting."""
    wrapper = new_wrapper(OPTIONS={"isolation_level": 99})

    with pytest.raises(Exception, match="Invalid transaction isolation level"):
        fetch_value(wrapper, "SELECT 1")


def test_a_closed_connection_is_readable(new_wrapper):
    """So that it is looked at, and replaced."""
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")
    assert not is_readable(wrapper.connection)

    wrapper.connection.close()

    assert is_readable(wrapper.connection)


def test_dbshell_logs_in(local, django_db_blocker, monkeypatch):
    """Psql gets host, user, database and TLS from the same place, and a token."""
    seen: dict[str, Any] = {}

    def run(args, env, **_):
        seen.update(args=args, env=env)
        return subprocess.CompletedProcess(args, 0)

    monkeypatch.setattr(subprocess, "run", run)
    with django_db_blocker.unblock():
        call_command("dbshell")

    assert seen["args"][0] == "psql"
    assert {local.facts["service_principal"], local.facts["host"]} < set(seen["args"])
    given = conninfo_to_dict(seen["args"][-1])
    assert given["hostaddr"] == local.facts["hostaddr"]
    assert given["sslmode"] == "verify-full"
    with psycopg.connect(
        host=local.facts["host"],
        port=local.facts["port"],
        dbname=local.facts["database"],
        user=local.facts["service_principal"],
        password=seen["env"]["PGPASSWORD"],
        hostaddr=local.facts["hostaddr"],
        sslmode="verify-full",
        sslrootcert=local.facts["ca_file"],
    ) as shell:
        assert shell.info.user == local.facts["service_principal"]


def test_dbshell_for_a_native_login_uses_its_password(new_wrapper, local):
    """Nothing is asked from the workspace."""
    wrapper = new_wrapper(
        HOST=local.facts["host"],
        USER=local.facts["native_user"],
        PASSWORD=local.facts["native_password"],
    )

    _, environment = wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, [])

    assert environment["PGPASSWORD"] == local.facts["native_password"]
    assert local.counters()["requests"] == {}


def test_the_test_database_is_named_for_the_environment_s(new_wrapper):
    """Not test_, which several projects would share."""
    wrapper = new_wrapper()
    wrapper.settings_dict = {**wrapper.settings_dict, "NAME": ""}

    name = wrapper.creation._get_test_db_name()  # noqa: SLF001 - Django's.

    assert name == "test_databricks_postgres"


def test_the_signature_asks_for_the_host(new_wrapper, local, monkeypatch):
    """Two endpoints without HOST are not the same database."""
    monkeypatch.delenv("PGHOST")

    assert new_wrapper().creation.test_db_signature()[0] == local.facts["host"]


def test_the_server_sees_the_projects_name(new_wrapper, monkeypatch):
    """A look at pg_stat_activity tells which project a session is of."""
    name = "SELECT current_setting('application_name')"

    assert fetch_value(new_wrapper(), name) == "tests (django_lakebase)"
    own = new_wrapper(OPTIONS={"application_name": "worker"})
    assert fetch_value(own, name) == "worker"
    monkeypatch.setenv("PGAPPNAME", "an app of the platform's")
    assert fetch_value(new_wrapper(), name) == "an app of the platform's"


def test_the_workspace_sees_this_package_and_its_version(new_wrapper):
    """In the user agent, which the audit log keeps."""
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")

    client = new_client(wrapper.get_target().login)

    assert client.config.user_agent.startswith(f"django-lakebase/{__version__} ")
