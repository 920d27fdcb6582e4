"""The cache of the Target that settings and environment lead to."""

import copy

import pytest

from django_lakebase.config.cache import RAW_ENVIRONMENT, TargetCache
from django_lakebase.config.fill import fill_settings
from django_lakebase.config.resolve import resolve_target
from django_lakebase.config.sources import Filled
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
    before = reading.get(settings, "one")

    change(settings)

    assert reading.get(settings, "one") != before
    assert reading.get(settings, "one") == resolve_target(
        copy.deepcopy(settings), "one"
    )


@pytest.mark.parametrize("raw", [RAW_ENVIRONMENT, None], ids=["raw", "decoded"])
def test_change_of_the_environment_is_noticed(monkeypatch, raw):
    """Also where Python has no raw copy of the environment."""
    monkeypatch.setattr("django_lakebase.config.cache.RAW_ENVIRONMENT", raw)
    settings, reading = copy.deepcopy(SETTINGS), TargetCache()
    before = reading.get(settings, "one")
    assert reading.get(settings, "one") is before

    monkeypatch.setenv("PGSSLROOTCERT", "/after.pem")

    assert reading.get(settings, "one").sslrootcert == "/after.pem"


def test_python_keeps_the_raw_environment():
    """A private attribute: without it, the cache is correct but slow."""
    assert RAW_ENVIRONMENT is not None
    assert b"PGHOST" in RAW_ENVIRONMENT


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
    assert reading.get(settings, "one").user_setting == "PGUSER"
    assert isinstance(settings["USER"], Filled)

    settings["USER"] = str(settings["USER"])

    assert reading.get(settings, "one").user_setting == "USER"


def test_settings_error_is_not_cached(monkeypatch):
    settings, reading = copy.deepcopy(SETTINGS), TargetCache()
    monkeypatch.setenv("PGPORT", "a lot")
    with pytest.raises(SettingsError):
        reading.get(settings, "one")

    monkeypatch.setenv("PGPORT", "5433")

    assert reading.get(settings, "one").port == "5433"
