"""A Target is read again when, and only when, what it is read from has changed."""

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
    """Give the variables of one place."""
    monkeypatch.setenv("ENDPOINT_NAME", "projects/a/branches/b/endpoints/c")
    monkeypatch.setenv("PGHOST", "one.example")


def test_nothing_is_read_twice():
    """While settings and environment stay, so does the Target itself."""
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
def test_a_change_in_the_settings_is_seen(change):
    """At any depth, as Django's test runner and tests make them: in place."""
    settings, reading = copy.deepcopy(SETTINGS), Reading()
    before = reading.target(settings, "one")

    change(settings)

    assert reading.target(settings, "one") != before
    assert reading.target(settings, "one") == read(copy.deepcopy(settings), "one")


@pytest.mark.parametrize("keeps", ["_data", "nothing"])
def test_a_change_in_the_environment_is_seen(monkeypatch, keeps):
    """In Python's own copy of it, and where that is out of reach one day."""
    monkeypatch.setattr("django_lakebase.reading.RAW", keeps)
    settings, reading = copy.deepcopy(SETTINGS), Reading()
    before = reading.target(settings, "one")
    assert reading.target(settings, "one") is before

    monkeypatch.setenv("PGSSLROOTCERT", "/after.pem")

    assert reading.target(settings, "one").sslrootcert == "/after.pem"


def test_a_filled_value_that_becomes_the_projects_own_is_seen(monkeypatch):
    """The two are equal as text, and messages name where the user came from."""
    settings, reading = copy.deepcopy(SETTINGS), Reading()
    settings["OPTIONS"] = {}
    monkeypatch.setenv("PGUSER", "someone")
    assert reading.target(settings, "one").user_setting == "PGUSER"
    assert isinstance(settings["USER"], Filled)

    settings["USER"] = str(settings["USER"])

    assert reading.target(settings, "one").user_setting == "USER"


def test_what_cannot_be_read_is_not_kept(monkeypatch):
    """An error goes away with its cause."""
    settings, reading = copy.deepcopy(SETTINGS), Reading()
    monkeypatch.setenv("PGPORT", "a lot")
    with pytest.raises(SettingsError):
        reading.target(settings, "one")

    monkeypatch.setenv("PGPORT", "5433")

    assert reading.target(settings, "one").port == "5433"
