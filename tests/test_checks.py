"""The system checks."""

import pytest
from django.db import connections

from django_lakebase.checks import check_options, check_settings


@pytest.fixture
def options(local):
    """Give the OPTIONS of the default alias, put back afterwards."""
    own = connections["default"].settings_dict
    before = own["OPTIONS"]
    own["OPTIONS"] = {}
    yield own["OPTIONS"]
    own["OPTIONS"] = before


def test_a_good_configuration_has_nothing_to_say(options):
    """Known keys of Django's, libpq's and ours are no finding."""
    options.update(pool=True, sslmode="require", endpoint="x", application_name="y")
    options["endpoint"] = "projects/p/branches/b/endpoints/e"

    assert check_options() == []
    assert check_settings() == []


def test_a_misspelled_key_is_named_with_the_nearest(options):
    """W001 finds what libpq would refuse at the first connection."""
    options["conect_budget"] = 5

    [finding] = check_options()

    assert finding.id == "lakebase.W001"
    assert "conect_budget" in finding.msg
    assert finding.hint == 'Did you mean "connect_budget"?'


def test_a_key_like_no_other_is_to_be_removed(options):
    """Without a likeness nothing is suggested."""
    options["zzzzzzzz"] = 5

    assert check_options()[0].hint == "Remove it."


def test_what_cannot_connect_is_said_before(options):
    """W002 is the text of the later error."""
    options["sslmode"] = "disable"

    [finding] = check_settings()

    assert finding.id == "lakebase.W002"
    assert 'OPTIONS["sslmode"]' in finding.msg


def test_no_warning_stops_a_command(options, monkeypatch):
    """An image is built without the variables that its containers get."""
    monkeypatch.delenv("ENDPOINT_NAME")

    assert not any(finding.is_serious() for finding in check_settings())
