"""GeoDjango on the local Lakebase: migrations, spatial queries, tests, inspectdb."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import load_backend

from tests.helpers.plain_psycopg import open_session
from tests.helpers.queries import fetch_value

TOP = Path(__file__).parents[3]
DATABASE = "geo"
# Each alias connects with a valid token, and then with one that is rejected.
QUERIES = """
import json, sys
import django
django.setup()
from django.contrib.gis.geos import Point
from django.contrib.gis.measure import D
from django.db import connections
from tests.projects.geo.models import Place
from tests.helpers.credential_cache import cache_token
from tests.helpers.queries import fetch_value

def near(alias):
    places = Place.objects.using(alias).filter(
        point__dwithin=(Point(7.45, 46.95), D(km=120))
    )
    return {place.name: place.point.coords for place in places.order_by("name")}

Place.objects.bulk_create([
    Place(name="Bern", point=Point(7.45, 46.95)),
    Place(name="Basel", point=Point(7.59, 47.56)),
    Place(name="Oslo", point=Point(10.75, 59.91)),
])
found = []
for alias in ("default", "pooled"):
    connection = connections[alias]
    found.append(near(alias))
    connection.connection.close()
    connection.close()
    cache_token(connection, sys.argv[1], left=3600)
    found.append(near(alias))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def geo(lakebase):
    """Return the environment of a project with an empty database."""
    try:
        load_backend("django_lakebase.postgis")
    except ImproperlyConfigured as exc:
        pytest.skip(str(exc))
    settings = "tests.projects.geo.settings"
    return {**os.environ, "DJANGO_SETTINGS_MODULE": settings, "PGDATABASE": DATABASE}


@pytest.fixture
def server(new_wrapper):
    """Return a connection to the server, which must have PostGIS."""
    wrapper = new_wrapper("server")
    known = "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgis'"
    if not fetch_value(wrapper, known):
        pytest.skip("the local Lakebase's PostgreSQL has no PostGIS")
    return wrapper


@pytest.fixture
def database(server):
    """Create an empty database, and drop it after the test."""
    with server.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {DATABASE}")
    yield DATABASE
    with server.cursor() as cursor:
        cursor.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def python(geo, *arguments):
    """Run Python with *arguments* in the project; return its output."""
    found = subprocess.run(
        [sys.executable, *arguments],
        cwd=TOP,
        env=geo,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("schema", ["", "places"])
def test_geodjango_project_works_without_superuser(geo, database, local, schema):
    """Migrations, spatial queries before and after a rotation, and inspectdb."""
    geo = {**geo, "LAKEBASE_SCHEMA": schema}
    python(geo, "-m", "django", "migrate", "--verbosity=0")
    rejected = local.issue_token(local.facts["service_principal"], ttl=-10)

    near = '{"Basel": [7.59, 47.56], "Bern": [7.45, 46.95]}'
    assert python(geo, "-c", QUERIES, rejected) == f"[{', '.join([near] * 4)}]\n"

    model = python(geo, "-m", "django", "inspectdb", "geo_place")
    assert "point = models.PointField(geography=True)" in model
    with open_session(local, dbname=database) as session:
        sql = "SELECT extnamespace::regnamespace::text FROM pg_extension"
        assert session.execute(f"{sql} WHERE extname = 'postgis'").fetchall() == [
            ("public",)
        ]


def test_geodjango_test_database_gets_postgis_without_superuser(geo, server):
    python(geo, "-m", "django", "test", "tests.projects.geo.tests", "--noinput")
