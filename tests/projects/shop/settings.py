"""A project with tests; variables set its databases."""

import json
import os

SECRET_KEY = "only for tests"
USE_TZ = True
DATABASES = json.loads(
    os.environ.get("SHOP_DATABASES", '{"default": {"ENGINE": "django_lakebase"}}')
)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django_lakebase", "catalog"]
