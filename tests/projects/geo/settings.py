"""Minimal settings of a project that uses GeoDjango."""

from typing import Any

SECRET_KEY = "only for tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES: dict[str, dict[str, Any]] = {
    "default": {"ENGINE": "django_lakebase.postgis"},
    "pooled": {
        "ENGINE": "django_lakebase.postgis",
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 1, "timeout": 10}},
        "TEST": {"MIRROR": "default"},
    },
}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.gis",
    "django_lakebase",
    "tests.projects.geo",
]
