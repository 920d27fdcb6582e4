"""Sites whose app has migrations that a test writes, in a database of the owner."""

import importlib
import sys
import textwrap
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from django_lakebase.diagnosis.session import Session, open_connection
from tests.conftest import NewWrapper
from tests.helpers.plain_psycopg import new_database
from tests.integration.roles.conftest import GRANTS, Site

HEADER = """
from django.contrib.postgres.operations import *
from django.db import models
from django.db.migrations import *
"""
WriteMigration = Callable[..., Path]


@pytest.fixture(params=["guide"])
def grants(request: pytest.FixtureRequest) -> str:
    """Return the name of what is granted to the app."""
    return str(request.param)


@pytest.fixture
def site(local: Any, new_wrapper: NewWrapper, grants: str) -> Iterator[Site]:
    """Yield a site with an empty database of the owner."""
    with new_database(local, user=local.facts["owner"]) as name:
        site = Site(local, name, new_wrapper)
        site.execute(site.owner, GRANTS[grants])
        yield site
        connections["other"].close()
        del connections["other"]


@pytest.fixture
def write_migration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> Iterator[WriteMigration]:
    """Yield a function that adds a migration to "app", the only app with models."""
    package = f"migrations_{uuid.uuid4().hex[:8]}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    settings.INSTALLED_APPS = ["django_lakebase", "tests.projects.app"]
    settings.MIGRATION_MODULES = {"app": package}

    def write(
        name: str, *operations: str, after: str = "", code: str = "", **attributes: Any
    ) -> Path:
        dependencies = [("app", after)] if after else []
        attributes["dependencies"] = attributes.get("dependencies", dependencies)
        lines = [f"{key} = {value!r}" for key, value in attributes.items()]
        lines.append(f"operations = [{', '.join(operations)}]")
        body = textwrap.indent("\n".join(lines), "    ")
        text = f"{HEADER}{code}\nclass Migration(Migration):\n{body}\n"
        path = tmp_path / package / f"{name}.py"
        path.write_text(text)
        importlib.invalidate_caches()
        return path

    yield write
    for module in [name for name in sys.modules if name.startswith(package)]:
        del sys.modules[module]


@pytest.fixture
def open_step_session(site: Site) -> Iterator[Callable[..., Session]]:
    """Yield a function that opens the session of the deployment steps."""
    opened = []

    def open_session(role: str = "", **options: Any) -> Session:
        wrapper = site.connect(role or site.app, **options)
        opened.append(open_connection(wrapper))
        return Session(wrapper=wrapper, connection=opened[-1])

    yield open_session
    for connection in opened:
        connection.close()
