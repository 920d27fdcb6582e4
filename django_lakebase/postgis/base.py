"""
The engine for GeoDjango: ``"ENGINE": "django_lakebase.postgis"``.

Like Django's PostGIS backend, it requires GDAL.
"""

from django.contrib.gis.db.backends.postgis.base import (
    DatabaseWrapper as PostGISDatabaseWrapper,
)

from django_lakebase.base import LakebaseMixin


class DatabaseWrapper(LakebaseMixin, PostGISDatabaseWrapper):
    """Django's PostGIS backend, logging in with Databricks credentials."""
