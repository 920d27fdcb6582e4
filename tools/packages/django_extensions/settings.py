"""A project with django-extensions; it is told what kind of engine ours is."""

from tests.settings import *

INSTALLED_APPS += ["django_extensions"]
DATABASES = {"default": {"ENGINE": "django_lakebase.postgresql"}}
DJANGO_EXTENSIONS_RESET_DB_POSTGRESQL_ENGINES = ["django_lakebase.postgresql"]
