"""A project that sends all that Sentry can take."""

import os

from tests.settings import *

ROOT_URLCONF = "tests.projects.app.urls"
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
