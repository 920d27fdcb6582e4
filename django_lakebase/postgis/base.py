"""
The engine for GeoDjango: ``"ENGINE": "django_lakebase.postgis"``.

Like Django's PostGIS backend, it requires GDAL.
"""

from django.contrib.gis.db.backends.postgis.base import (
    DatabaseWrapper as PostGISDatabaseWrapper,
)
from django.contrib.gis.db.backends.postgis.introspection import PostGISIntrospection
from django.contrib.gis.db.backends.postgis.schema import PostGISSchemaEditor

from django_lakebase.base import LakebaseMixin
from django_lakebase.schema import IntrospectionMixin, SchemaEditorMixin


class DatabaseSchemaEditor(SchemaEditorMixin, PostGISSchemaEditor):
    """Django's schema editor for PostGIS."""


class DatabaseIntrospection(IntrospectionMixin, PostGISIntrospection):
    """Django's introspection of PostGIS."""


class DatabaseWrapper(LakebaseMixin, PostGISDatabaseWrapper):
    """Django's PostGIS backend, logging in with Databricks credentials."""

    SchemaEditorClass = DatabaseSchemaEditor
    introspection_class = DatabaseIntrospection
