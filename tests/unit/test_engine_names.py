"""The backends django_lakebase.postgresql and django_lakebase.postgis."""

import subprocess
import sys

from django.db.utils import load_backend

from django_lakebase.base import DatabaseWrapper


def test_a_missing_gdal_is_named():
    """The error is about the library, and not about an engine that cannot be found."""
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


def test_the_word_names_the_very_same_engine():
    """What others replace in the one they have replaced in the other."""
    backend = load_backend("django_lakebase.postgresql")

    assert backend.DatabaseWrapper is DatabaseWrapper
