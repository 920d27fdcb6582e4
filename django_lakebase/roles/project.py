"""The tables of the installed apps, as the part of a `Request` that Django knows."""

from typing import TypedDict

from django.apps import apps
from django.conf import settings
from django.db import router
from django.db.migrations.recorder import MigrationRecorder

from django_lakebase.base import LakebaseMixin

DATABASE_CACHE = "django.core.cache.backends.db.DatabaseCache"


class ProjectTables(TypedDict):
    """Arguments of `Request`."""

    schema: str
    tables: frozenset[str]
    unmanaged_tables: frozenset[str]


def unquote(name: str) -> str:
    """Return the name of a table without the quotes that `db_table` may contain."""
    # As quote_name() of Django, which adds none in this case.
    is_quoted = name.startswith('"') and name.endswith('"')
    return name[1:-1].replace('""', '"') if is_quoted else name


def project_tables(wrapper: LakebaseMixin) -> ProjectTables:
    """Return the schema and the tables that the alias of *wrapper* uses."""
    tables = {MigrationRecorder.Migration._meta.db_table}
    unmanaged: set[str] = set()
    for model in apps.get_models(include_auto_created=True):
        options = model._meta
        if router.allow_migrate_model(wrapper.alias, model) and not options.proxy:
            name = unquote(options.db_table)
            (tables if options.managed else unmanaged).add(name)
    if router.allow_migrate(wrapper.alias, "django_cache", model_name="cacheentry"):
        # createcachetable creates them.
        caches = settings.CACHES.values()
        tables |= {c["LOCATION"] for c in caches if c["BACKEND"] == DATABASE_CACHE}
    return ProjectTables(
        schema=wrapper.get_target().schema,
        tables=frozenset(tables),
        unmanaged_tables=frozenset(unmanaged - tables),
    )
