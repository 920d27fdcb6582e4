"""The wrapper that Django loads: parameters, time zone, client, creation."""

import pickle
import subprocess
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.test import override_settings
from psycopg.conninfo import conninfo_to_dict

from django_lakebase import __version__
from django_lakebase.auth.sdk import new_client
from django_lakebase.connect.liveness import is_readable
from django_lakebase.connect.params import KEEPALIVES
from django_lakebase.events import get_count
from django_lakebase.exceptions import LakebaseError
from tests.helpers.queries import fetch_value


def test_connection_params_send_no_request(new_wrapper, local):
    """Django builds them at every checkout from a pool."""
    params = new_wrapper().get_connection_params()

    assert params["host"] == local.facts["host"]
    assert local.fetch_counters()["requests"] == {}


def test_connection_params_always_have_a_host(new_wrapper, monkeypatch):
    """Without one, psycopg would connect to the local socket and send it the token."""
    monkeypatch.delenv("PGHOST")

    assert "host" in new_wrapper().get_connection_params()


def test_connection_params_kept_by_a_library_connect_with_current_tokens(
    new_wrapper, local
):
    """Procrastinate keeps them for its own pool."""
    params = new_wrapper().get_connection_params()
    for _ in range(2):
        with psycopg.connect(**params) as foreign:
            assert foreign.execute("SELECT 1").fetchone() == (1,)
        local.reset_counters()


def test_options_of_the_engine_do_not_reach_libpq(new_wrapper):
    """Libpq would reject them."""
    endpoint = "projects/p/branches/b/endpoints/e"
    wrapper = new_wrapper(OPTIONS={"connect_budget": 5, "endpoint": endpoint})

    assert not {"connect_budget", "endpoint"} & set(wrapper.get_connection_params())


def test_keepalives_are_on_by_default(new_wrapper):
    """Half-open connections are closed after about a minute."""
    wrapper = new_wrapper(OPTIONS={"keepalives_idle": 5})

    params = wrapper.get_connection_params()

    assert params["tcp_user_timeout"] == KEEPALIVES["tcp_user_timeout"]
    assert params["keepalives_idle"] == 5


def test_repr_and_pickle_of_a_lazy_value_have_no_secret(new_wrapper):
    password = new_wrapper("default").get_connection_params()["password"]

    assert repr(password) == '<password of DATABASES["default"], fetched when used>'
    assert str(pickle.loads(pickle.dumps(password))) == str(password)  # noqa: S301 - ours.


def test_str_of_the_lazy_password_raises_the_error_of_a_query(new_wrapper, local):
    password = new_wrapper().get_connection_params()["password"]

    with (
        local.fault("no-workspace-access"),
        pytest.raises(LakebaseError, match="Workspace access"),
    ):
        str(password)


def test_time_zone_is_in_the_startup_packet(new_wrapper):
    """Django's own query after each connect is not needed."""
    wrapper = new_wrapper(TIME_ZONE="Europe/Paris")
    params = wrapper.get_connection_params()
    assert params["options"] == "-c TimeZone=Europe/Paris"

    assert fetch_value(wrapper, "SHOW TimeZone") == "Europe/Paris"


def test_options_of_the_project_precede_the_time_zone(new_wrapper, monkeypatch):
    """Those of the settings, otherwise those of PGOPTIONS."""
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=5MB")

    assert fetch_value(new_wrapper(), "SHOW work_mem") == "5MB"
    own = new_wrapper(OPTIONS={"options": "-c work_mem=6MB"})
    assert fetch_value(own, "SHOW work_mem") == "6MB"


def test_rejected_time_zone_option_is_set_by_django_instead(new_wrapper, monkeypatch):
    """The next attempt omits it, and so does every later connection."""
    # The engine remembers the rejection for these settings, which no other test has.
    wrapper = new_wrapper(OPTIONS={"application_name": "without a time zone"})
    params = wrapper.get_connection_params()
    params["options"] = params["options"].replace("UTC", "No/Where")
    monkeypatch.setattr(wrapper, "get_connection_params", params.copy)

    retried = get_count(wrapper.alias, "retried")

    assert fetch_value(wrapper, "SHOW TimeZone") == "UTC"

    assert get_count(wrapper.alias, "retried") == retried + 1
    monkeypatch.undo()
    assert wrapper.get_connection_params()["options"] == ""


@override_settings(USE_TZ=False, TIME_ZONE=None)
def test_startup_packet_has_no_time_zone_without_the_setting(new_wrapper):
    assert new_wrapper().get_connection_params()["options"] == ""


def test_settings_assigned_later_are_filled_from_the_environment(new_wrapper, local):
    """Tests and tools assign settings after the wrapper was created."""
    wrapper = new_wrapper()
    wrapper.settings_dict = {**wrapper.settings_dict, "NAME": "", "HOST": ""}

    assert fetch_value(wrapper, "SELECT current_database()") == local.facts["database"]


def test_assume_role_works_without_a_pool(new_wrapper, local):
    principal = local.facts["service_principal"]
    wrapper = new_wrapper(OPTIONS={"assume_role": principal})

    assert fetch_value(wrapper, "SELECT current_user") == principal


def test_invalid_isolation_level_raises_the_error_of_django(new_wrapper):
    wrapper = new_wrapper(OPTIONS={"isolation_level": 99})

    with pytest.raises(Exception, match="Invalid transaction isolation level"):
        fetch_value(wrapper, "SELECT 1")


def test_closed_connection_is_readable(new_wrapper):
    """The engine then checks and replaces it."""
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")
    assert not is_readable(wrapper.connection)

    wrapper.connection.close()

    assert is_readable(wrapper.connection)


def test_dbshell_logs_in(local, django_db_blocker, monkeypatch):
    """Psql gets the same host, user, database and TLS settings, and a token."""
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


def test_dbshell_of_a_native_login_uses_its_password(new_wrapper, local):
    wrapper = new_wrapper(
        HOST=local.facts["host"],
        USER=local.facts["native_user"],
        PASSWORD=local.facts["native_password"],
    )

    _, environment = wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, [])

    assert environment["PGPASSWORD"] == local.facts["native_password"]
    assert local.fetch_counters()["requests"] == {}


def test_test_database_name_uses_the_database_of_the_environment(new_wrapper):
    """And not only test_, which several projects would share."""
    wrapper = new_wrapper()
    wrapper.settings_dict = {**wrapper.settings_dict, "NAME": ""}

    name = wrapper.creation._get_test_db_name()  # noqa: SLF001 - Django's.

    assert name == "test_databricks_postgres"


def test_test_database_signature_has_the_fetched_host(new_wrapper, local, monkeypatch):
    """Two endpoints without HOST are different databases."""
    monkeypatch.delenv("PGHOST")

    assert new_wrapper().creation.test_db_signature()[0] == local.facts["host"]


def test_application_name_is_the_project_by_default(new_wrapper, monkeypatch):
    """pg_stat_activity shows which project a session belongs to."""
    name = "SELECT current_setting('application_name')"

    assert fetch_value(new_wrapper(), name) == "tests (django_lakebase)"
    own = new_wrapper(OPTIONS={"application_name": "worker"})
    assert fetch_value(own, name) == "worker"
    monkeypatch.setenv("PGAPPNAME", "an app of the platform's")
    assert fetch_value(new_wrapper(), name) == "an app of the platform's"


def test_user_agent_has_the_version_of_the_package(new_wrapper):
    """The audit log of the workspace keeps it."""
    wrapper = new_wrapper()
    fetch_value(wrapper, "SELECT 1")

    client = new_client(wrapper.get_target().login)

    assert client.config.user_agent.startswith(f"django-lakebase/{__version__} ")
