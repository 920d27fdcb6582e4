"""Minimal settings, on the database that the environment names."""

INSTALLED_APPS = [
    "django_lakebase",
    "django.contrib.contenttypes",
    "tests.projects.deploy",
]
SECRET_KEY = "only for tests"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "django_lakebase"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
