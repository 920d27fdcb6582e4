"""Settings of the example project, for this machine and for Databricks Apps."""

import os
from pathlib import Path

from django_lakebase.contrib.databricks_apps import (
    get_proxy_settings,
    is_databricks_app,
)

IS_APP = is_databricks_app()
DATABASES = {
    "default": {
        "ENGINE": "django_lakebase",
        "OPTIONS": {
            # Without a pool, runserver would open a connection for each request.
            "pool": {"min_size": 1, "max_size": 4},
            # On Databricks Apps, the app may not write to the schema "public".
            "schema": "auto" if IS_APP else "",
            # Seconds. The platform ends a request after 120 seconds.
            "statement_timeout": 60,
            "idle_in_transaction_session_timeout": 30,
        },
    }
}

# On Databricks Apps, the client secret of the app; the default is for this machine.
SECRET_KEY = (
    os.environ.get("SECRET_KEY")
    or os.environ.get("DATABRICKS_CLIENT_SECRET", "") * IS_APP
    or "not a secret: for this machine only"
)
DEBUG = os.environ.get("DEBUG", "1") == "1"

proxy = get_proxy_settings()
ALLOWED_HOSTS = proxy["ALLOWED_HOSTS"] or ["localhost", "127.0.0.1"]
CSRF_TRUSTED_ORIGINS = proxy["CSRF_TRUSTED_ORIGINS"]
CSRF_COOKIE_SECURE = proxy["CSRF_COOKIE_SECURE"]
SECURE_PROXY_SSL_HEADER = proxy["SECURE_PROXY_SSL_HEADER"]
SESSION_COOKIE_SECURE = proxy["SESSION_COOKIE_SECURE"]
USE_X_FORWARDED_HOST = proxy["USE_X_FORWARDED_HOST"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "django_lakebase",
    "example_project.notes",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
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
STATIC_ROOT = Path(__file__).parent / "staticfiles"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True

if IS_APP:
    # The platform signs users in, and no other server serves the static files.
    MIDDLEWARE.insert(1, "whitenoise.middleware.WhiteNoiseMiddleware")
    MIDDLEWARE.append(
        "django_lakebase.contrib.databricks_apps.middleware.ForwardedUserMiddleware"
    )
    INSTALLED_APPS.append("django_lakebase.contrib.databricks_apps")
    AUTHENTICATION_BACKENDS = [
        "django_lakebase.contrib.databricks_apps.backends.ForwardedUserBackend"
    ]
    DATABRICKS_APPS = {"SUPERUSERS": os.environ.get("SUPERUSERS", "")}
