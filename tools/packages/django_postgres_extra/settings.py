"""Settings with the backend of django-postgres-extra on top of the engine."""

from tools.packages.base_settings import *

INSTALLED_APPS += [
    "django.contrib.postgres",
    "psqlextra",
    "tools.packages.django_postgres_extra.readings",
]
DATABASES = {"default": {"ENGINE": "psqlextra.backend"}}
POSTGRES_EXTRA_DB_BACKEND_BASE = "django_lakebase"
