"""A project with triggers in its models."""

from tests.settings import *

INSTALLED_APPS += ["pgtrigger", "tools.packages.django_pgtrigger.ledger"]
DATABASES = {
    "default": {
        "ENGINE": "django_lakebase",
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}},
    }
}
