"""The cache of the Target that settings and environment lead to."""

import copy

import pytest

from django_lakebase.config import Filled, read
from django_lakebase.errors import SettingsError
from django_lakebase.reading import Reading

SETTINGS = {
    "NAME": "",
    "USER": "",
    "PASSWORD": "",
    "HOST": "",
    "PORT": "",
    "OPTIONS": {"workspace": {"profile": "one"}, "pool": {"min_size": 1}},
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Set the variables of one endpoint."""
    monkeypatch.setenv("ENDPOINT_NAME", "projects/a/branches/b/endpoints/c")
    monkeypatch.setenv("PGHOST", "one.example")


def test_unchanged_settings_return_the_same_target():
    settings, reading = copy.deepcopy(SETTINGS), Reading()

    assert reading.target(settings, "one") is reading.target(settings, "one")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: s.update(NAME="other"), id="a setting"),
        pytest.param(lambda s: s["OPTIONS"].update(connect_budget=3), id="an option"),
        pytest.param(
            lambda s: s["OPTIONS"]["workspace"].update(profile="two"), id="a login"
        ),
        pytest.param(lambda s: s["OPTIONS"]["pool"].clear(), id="a pool's"),
    ],
)
def test_change_in_place_of_the_settings_is_noticed(change):
    """At any depth: Django's test runner changes settings in place."""
    settings, reading = copy.deepcopy(SETTINGS), Reading()
    before = reading.target(settings, "one")

    change(settings)

    assert reading.target(settings, "one") != before
    assert reading.target(settings, "one") == read(copy.deepcopy(settings), "one")


@pytest.mark.parametrize("keeps", ["_data", "nothing"])
def test_change_of_the_environment_is_noticed(monkeypatch, keeps):
    """Also where Python has no raw copy of the environment."""
    monkeypatch.setattr("django_lakebase.reading.RAW", keeps)
    settings, reading = copy.deepcopy(SETTINGS), Reading()
    before = reading.target(settings, "one")
    assert reading.target(settings, "one") is before

    monkeypatch.setenv("PGSSLROOTCERT", "/after.pem")

    assert reading.target(settings, "one").sslrootcert == "/after.pem"


def test_filled_value_replaced_by_an_equal_string_is_noticed(monkeypatch):
    """Error texts name the setting or variable that the user came from."""
    settings, reading = copy.deepcopy(SETTINGS), Reading()
    settings["OPTIONS"] = {}
    monkeypatch.setenv("PGUSER", "someone")
    assert reading.target(settings, "one").user_setting == "PGUSER"
    assert isinstance(settings["USER"], Filled)

    settings["USER"] = str(settings["USER"])

    assert reading.target(settings, "one").user_setting == "USER"


def test_settings_error_is_not_cached(monkeypatch):
    settings, reading = copy.deepcopy(SETTINGS), Reading()
    monkeypatch.setenv("PGPORT", "a lot")
    with pytest.raises(SettingsError):
        reading.target(settings, "one")

    monkeypatch.setenv("PGPORT", "5433")

    assert reading.target(settings, "one").port == "5433"
