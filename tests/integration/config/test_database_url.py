"""Connections of a project that is configured with DATABASE_URL only."""

import re
from pathlib import Path
from typing import Any

import dj_database_url
import environ
import pytest

import django_lakebase
from tests.helpers.queries import fetch_value

PAGE = Path(django_lakebase.__file__).parents[1] / "docs/howto/urls.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(autouse=True)
def unregistered(monkeypatch):
    """Undo the registration of the URL schemes after the test."""
    monkeypatch.setattr(dj_database_url, "ENGINE_SCHEMES", {})
    monkeypatch.setattr(environ.Env, "DB_SCHEMES", {})


@pytest.mark.parametrize("block", BLOCKS[:2], ids=["dj-database-url", "django-environ"])
@pytest.mark.parametrize("query", ["", "?pool=true", "?pool=false", "?pool=1"])
def test_project_with_only_a_url_connects(block, query, new_wrapper, monkeypatch):
    """All else is in the environment; pool is a switch, however it is written."""
    monkeypatch.setenv("DATABASE_URL", f"lakebase:///{query}")
    settings: dict[str, Any] = {}
    exec(block, settings)  # noqa: S102 - our own documentation.

    wrapper = new_wrapper("url", **settings["DATABASES"]["default"])

    assert fetch_value(wrapper, "SELECT 1") == 1
    assert (wrapper.pool is not None) == (query in ("?pool=true", "?pool=1"))
