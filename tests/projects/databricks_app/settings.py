"""
Settings in the shape of the templates for Databricks Apps.

They read the database from the platform's variables, and put its tables in a schema
that is named after the app and its service principal.
"""

import os
from pathlib import Path

from django_lakebase.contrib.databricks_apps import get_proxy_settings

BASE_DIR = Path(__file__).parent
SECRET_KEY = os.environ["DATABRICKS_CLIENT_SECRET"]
SCHEMA = "{}_schema_{}".format(
    os.environ["PGAPPNAME"], os.environ["PGUSER"].replace("-", "")
)
DATABASES = {
    "default": {
        "ENGINE": "django_lakebase",
        "NAME": os.environ["PGDATABASE"],
        "USER": os.environ["PGUSER"],
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"],
        "OPTIONS": {
            "sslmode": os.environ["PGSSLMODE"],
            "options": f"-c search_path={SCHEMA}",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

PROXY = get_proxy_settings()
ALLOWED_HOSTS = PROXY["ALLOWED_HOSTS"]
CSRF_TRUSTED_ORIGINS = PROXY["CSRF_TRUSTED_ORIGINS"]
SECURE_PROXY_SSL_HEADER = PROXY["SECURE_PROXY_SSL_HEADER"]
USE_X_FORWARDED_HOST = PROXY["USE_X_FORWARDED_HOST"]
AUTHENTICATION_BACKENDS = [
    "django_lakebase.contrib.databricks_apps.backends.ForwardedUserBackend"
]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_lakebase",
    "django_lakebase.contrib.databricks_apps",
    "pages",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_lakebase.contrib.databricks_apps.middleware.ForwardedUserMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "pages.urls"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
