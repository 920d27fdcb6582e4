"""The backends django_lakebase.postgresql and django_lakebase.postgis."""

import io
import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections
from django.db.utils import load_backend

from django_lakebase.checks import check_databases
from tests.helpers.credential_cache import cache_of, cache_token
from tests.helpers.queries import fetch_value

POOL = {"min_size": 1, "max_size": 1, "timeout": 10}
# Run in a separate process.
PROJECT = """
from django.conf import settings
from tests import settings as own
own.DATABASES["default"]["ENGINE"] = "django_lakebase.postgresql"
settings.configure(**{k: v for k, v in vars(own).items() if k.isupper()})
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("lakebase_check")
from django.contrib.auth.models import Group
Group.objects.create(name="kept")
print("groups:", *Group.objects.values_list("name", flat=True))
"""


@pytest.fixture(params=["postgresql", "postgis"])
def engine(request):
    """Return each backend whose libraries are installed."""
    name = f"django_lakebase.{request.param}"
    try:
        load_backend(name)
    except ImproperlyConfigured as exc:
        pytest.skip(str(exc))
    return name


@pytest.fixture
def wrapper(engine, new_wrapper):
    """Yield a pooled connection of the engine as the default connection."""
    before = connections["default"]
    connections["default"] = new_wrapper(ENGINE=engine, OPTIONS={"pool": dict(POOL)})
    yield connections["default"]
    connections["default"].close()
    connections["default"] = before


def test_project_with_the_postgresql_engine_migrates_and_passes_the_check(
    new_wrapper, local
):
    """Third-party code looks for the word postgresql in ENGINE."""
    server = new_wrapper("server")
    with server.cursor() as cursor:
        cursor.execute("CREATE DATABASE word")
    try:
        found = subprocess.run(
            [sys.executable, "-c", PROJECT],
            env={**os.environ, "PGDATABASE": "word"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        with server.cursor() as cursor:
            cursor.execute("DROP DATABASE word WITH (FORCE)")

    assert "groups: kept" in found.stdout, found.stderr
    assert "ok       login" in found.stdout


def test_lakebase_check_accepts_the_engine(wrapper):
    out = io.StringIO()

    call_command("lakebase_check", stdout=out)

    assert "ok       rotation" in out.getvalue()


def test_system_checks_cover_the_engine(wrapper):
    wrapper.settings_dict["OPTIONS"] |= {"conect_budget": 5, "sslmode": "disable"}

    found = [finding.id for finding in check_databases()]

    assert found == ["lakebase.E002", "lakebase.W001"]


def test_pool_of_the_engine_survives_token_rotation(wrapper, local):
    cache_token(wrapper, local.issue_token(local.facts["service_principal"]), left=30)
    first = fetch_value(wrapper, "SELECT pg_backend_pid()")
    wrapper.connection.close()
    wrapper.close()

    assert fetch_value(wrapper, "SELECT pg_backend_pid()") != first
    assert wrapper.lifetime.expires_at == cache_of(wrapper).expires_at


def test_engines_share_one_credential(engine, new_wrapper, local):
    """The cache has one entry per login and endpoint."""
    fetch_value(new_wrapper("short"), "SELECT 1")
    fetch_value(new_wrapper("long", ENGINE=engine), "SELECT 1")

    assert local.fetch_counters()["credentials_issued"] == 1


def test_test_database_signature_has_the_fetched_host(
    engine, new_wrapper, local, monkeypatch
):
    monkeypatch.delenv("PGHOST")
    wrapper = new_wrapper(ENGINE=engine)

    assert wrapper.creation.test_db_signature()[0] == local.facts["host"]
