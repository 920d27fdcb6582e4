"""Settings with django-extensions, which needs the engine's name in a setting."""

from tools.packages.base_settings import *

INSTALLED_APPS += ["django_extensions"]
DATABASES = {"default": {"ENGINE": "django_lakebase.postgresql"}}
DJANGO_EXTENSIONS_RESET_DB_POSTGRESQL_ENGINES = ["django_lakebase.postgresql"]
