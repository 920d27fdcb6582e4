"""Settings with the debug toolbar, and with a client secret for it to hide."""

import os

from tools.packages.base_settings import *

DEBUG = True
INSTALLED_APPS += ["django.contrib.staticfiles", "debug_toolbar"]
MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware", *MIDDLEWARE]
STATIC_URL = "static/"
INTERNAL_IPS = ["127.0.0.1"]
ROOT_URLCONF = "tools.packages.django_debug_toolbar.urls"
DEBUG_TOOLBAR_CONFIG = {"IS_RUNNING_TESTS": False}
DATABASES = {
    "default": {
        "ENGINE": "django_lakebase",
        "OPTIONS": {
            "workspace": {
                "host": os.environ["DATABRICKS_HOST"],
                "client_id": os.environ["DATABRICKS_CLIENT_ID"],
                "client_secret": os.environ["DATABRICKS_CLIENT_SECRET"],
            },
        },
    }
}
