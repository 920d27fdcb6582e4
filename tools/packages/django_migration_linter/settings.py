"""Settings of a project whose migrations are linted."""

from tools.packages.base_settings import *

INSTALLED_APPS += [
    "django_migration_linter",
    "tools.packages.django_migration_linter.shop",
]
DATABASES = {"default": {"ENGINE": "django_lakebase.postgresql"}}
