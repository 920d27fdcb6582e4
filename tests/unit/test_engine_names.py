"""The backends django_lakebase.postgresql and django_lakebase.postgis."""

import subprocess
import sys

from django.db.utils import load_backend

from django_lakebase.base import DatabaseWrapper


def test_postgis_engine_without_gdal_names_the_library():
    """The error does not say that the engine was not found."""
    code = (
        "import ctypes.util\n"
        "ctypes.util.find_library = lambda name: None\n"
        "from django.conf import settings\n"
        "settings.configure()\n"
        "from django.db.utils import load_backend\n"
        "load_backend('django_lakebase.postgis')"
    )

    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert "ImproperlyConfigured: Could not find the GDAL library" in found.stderr
    assert "GDAL_LIBRARY_PATH" in found.stderr


def test_postgresql_engine_has_the_same_wrapper_class():
    """Libraries that patch one of them patch both."""
    backend = load_backend("django_lakebase.postgresql")

    assert backend.DatabaseWrapper is DatabaseWrapper
