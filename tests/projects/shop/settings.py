"""A project that has tests; its databases are told by the journeys that run them."""

import json
import os

SECRET_KEY = "only for tests"
USE_TZ = True
DATABASES = json.loads(
    os.environ.get("SHOP_DATABASES", '{"default": {"ENGINE": "django_lakebase"}}')
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_lakebase", "catalog"]
