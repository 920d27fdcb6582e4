"""A project that is traced, with a pool."""

from tests.settings import *

DATABASES = {
    "default": {
        "ENGINE": "django_lakebase",
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}},
    }
}
