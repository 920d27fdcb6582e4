"""Settings with an API and its browsable pages."""

from tools.packages.base_settings import *

INSTALLED_APPS += ["rest_framework", "rest_framework.authtoken"]
ROOT_URLCONF = "tools.packages.djangorestframework.urls"
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rest_framework.authentication.SessionAuthentication",
        "rest_framework.authentication.TokenAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.PageNumberPagination",
    "PAGE_SIZE": 2,
}
DATABASES = {
    "default": {
        "ENGINE": "django_lakebase",
        "ATOMIC_REQUESTS": True,
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}},
    }
}
STATIC_URL = "static/"
