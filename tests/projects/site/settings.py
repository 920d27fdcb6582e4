"""Minimal settings for real servers; variables change them."""

import json
import os

SECRET_KEY = "only for tests"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
ROOT_URLCONF = "tests.projects.site.urls"
# For example {"CONN_MAX_AGE": 600}.
OWN = json.loads(os.environ.get("SITE_DATABASE", "{}"))
DATABASES = {"default": {"ENGINE": "django_lakebase", **OWN}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django_lakebase",
    "example_project.notes",
    "tests.projects.site.apps.SiteConfig",
]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"stderr": {"class": "logging.StreamHandler"}},
    "loggers": {
        "django.request": {"handlers": ["stderr"], "level": "ERROR"},
        "django_lakebase": {"handlers": ["stderr"], "level": "INFO"},
    },
}
