"""What is installed."""

import zipfile
from importlib.metadata import metadata, version
from pathlib import Path

import pytest

import django_lakebase

TOP = Path(django_lakebase.__file__).parent.parent


def test_the_version_is_one():
    """Metadata and package agree."""
    assert version("django-lakebase") == django_lakebase.__version__


def test_the_runtime_needs_three_packages():
    """One pip install is enough, and brings nothing else."""
    needed = metadata("django-lakebase").get_all("Requires-Dist")

    names = sorted(need.split(">")[0] for need in needed if "extra" not in need)
    assert names == ["databricks-sdk", "django", "psycopg[binary,pool]"]


def test_a_wheel_holds_the_package_and_nothing_else(tmp_path):
    """Neither tests nor the example, and the mark for type checkers."""
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
    assert {n.split("/")[0].split("-")[0] for n in names} == {"django_lakebase"}
