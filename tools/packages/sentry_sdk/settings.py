"""Settings with a client secret, which Sentry must not get."""

import os

from tools.packages.base_settings import *

ROOT_URLCONF = "tools.packages.notes.urls"
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
