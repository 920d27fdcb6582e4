"""A project with django-postgres-extra over our engine."""

from tests.settings import *

INSTALLED_APPS += [
    "django.contrib.postgres",
    "psqlextra",
    "tools.packages.django_postgres_extra.readings",
]
DATABASES = {"default": {"ENGINE": "psqlextra.backend"}}
POSTGRES_EXTRA_DB_BACKEND_BASE = "django_lakebase"
