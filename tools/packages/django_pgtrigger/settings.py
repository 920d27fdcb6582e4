"""Settings of a project with triggers in its models."""

from tools.packages.base_settings import *

INSTALLED_APPS += ["pgtrigger", "tools.packages.django_pgtrigger.ledger"]
DATABASES = {
    "default": {
        "ENGINE": "django_lakebase",
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}},
    }
}
