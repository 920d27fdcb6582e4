"""Texts of failures."""

import pytest

from django_lakebase.failures.classify import failures_by_id
from django_lakebase.failures.render import summary_and_hint

APP = "80c74a21-d64b-4fca-96b9-619107795b1e"


@pytest.mark.parametrize("failure", ["role-missing", "assume-role-missing"])
@pytest.mark.parametrize(
    ("user", "option"),
    [
        ("a@example.com", "--user"),
        (APP, "--service-principal"),
        ("developers", "--group"),
    ],
)
def test_hint_names_the_command_that_creates_the_role(failure, user, option):
    _, hint = summary_and_hint(failures_by_id()[failure], {"user": user})

    assert f'manage.py lakebase_role create {option} "{user}"' in hint
