"""The cache of the Target that settings and environment lead to."""

import copy

import pytest

from django_lakebase.config import libpq
from django_lakebase.config.cache import PREFIXES, TargetCache
from django_lakebase.config.fill import fill_settings
from django_lakebase.config.login import LOGIN_VARIABLES
from django_lakebase.config.resolve import ENDPOINT_VARIABLES, resolve_target
from django_lakebase.config.sources import Filled
from django_lakebase.config.target import USER_VARIABLES
from django_lakebase.exceptions import SettingsError

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
    settings, reading = copy.deepcopy(SETTINGS), TargetCache()

    assert reading.get(settings, "one") is reading.get(settings, "one")


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
    settings, reading = copy.deepcopy(SETTINGS), TargetCache()
    before = reading.get(settings, "one").target

    change(settings)

    after = reading.get(settings, "one").target
    assert after != before
    assert after == resolve_target(copy.deepcopy(settings), "one")


@pytest.mark.parametrize(
    ("name", "value"),
    [("PGSSLROOTCERT", "/after.pem"), ("PGHOST", "two.example"), ("PGHOST", None)],
    ids=["added", "changed", "removed"],
)
def test_change_of_the_environment_is_noticed(monkeypatch, name, value):
    settings, reading = copy.deepcopy(SETTINGS), TargetCache()
    before = reading.get(settings, "one")
    assert reading.get(settings, "one") is before

    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)

    after = reading.get(settings, "one").target
    assert after != before.target
    assert after == resolve_target(copy.deepcopy(settings), "one")


def test_each_variable_of_libpq_and_the_engine_is_watched():
    names = {variable.name for variable in libpq.VARIABLES}
    names |= {*ENDPOINT_VARIABLES, *USER_VARIABLES, *LOGIN_VARIABLES}

    assert [name for name in names if not name.startswith(PREFIXES)] == []


def test_values_derived_from_the_target_are_dropped_with_it():
    settings, reading = copy.deepcopy(SETTINGS), TargetCache()
    reading.get(settings, "one").derived["it"] = "old"

    settings["NAME"] = "other"

    assert reading.get(settings, "one").derived == {}


def test_filling_by_another_thread_keeps_the_target():
    """The wrappers of all threads share the settings of an alias."""
    settings, reading = copy.deepcopy(SETTINGS), TargetCache()
    before = reading.get(settings, "one")

    fill_settings(settings, "one")

    assert reading.get(settings, "one") is before


def test_filled_value_replaced_by_an_equal_string_is_noticed(monkeypatch):
    """Error texts name the setting or variable that the user came from."""
    settings, reading = copy.deepcopy(SETTINGS), TargetCache()
    settings["OPTIONS"] = {}
    monkeypatch.setenv("PGUSER", "someone")
    assert reading.get(settings, "one").target.user_setting == "PGUSER"
    assert isinstance(settings["USER"], Filled)

    settings["USER"] = str(settings["USER"])

    assert reading.get(settings, "one").target.user_setting == "USER"


def test_settings_error_is_not_cached(monkeypatch):
    settings, reading = copy.deepcopy(SETTINGS), TargetCache()
    monkeypatch.setenv("PGPORT", "a lot")
    with pytest.raises(SettingsError):
        reading.get(settings, "one")

    monkeypatch.setenv("PGPORT", "5433")

    assert reading.get(settings, "one").target.port == "5433"
