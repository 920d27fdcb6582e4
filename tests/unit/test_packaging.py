"""The distribution: version, requirements and files."""

import zipfile
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

import django_lakebase

TOP = Path(django_lakebase.__file__).parent.parent


def test_metadata_has_the_version_of_the_package():
    assert version("django-lakebase") == django_lakebase.__version__


def test_package_requires_three_packages():
    needed = metadata("django-lakebase").get_all("Requires-Dist") or []

    names = sorted(need.split(">")[0] for need in needed if "extra" not in need)
    assert names == ["databricks-sdk", "django", "psycopg[binary,pool]"]


def test_wheel_contains_only_the_package(tmp_path):
    wheel = pytest.importorskip(
        "hatchling.builders.wheel", reason="hatchling is absent"
    )
    builder = wheel.WheelBuilder(str(TOP))
    [artifact] = builder.build(directory=str(tmp_path), versions=["standard"])

    names = zipfile.ZipFile(artifact).namelist()

    assert "django_lakebase/py.typed" in names
    assert "django_lakebase/local/gateway/server.py" in names
    assert "django_lakebase/postgresql/base.py" in names
    assert "django_lakebase/postgis/base.py" in names
    assert "django_lakebase/contrib/databricks_apps/middleware.py" in names
    assert {n.split("/")[0].split("-")[0] for n in names} == {"django_lakebase"}
