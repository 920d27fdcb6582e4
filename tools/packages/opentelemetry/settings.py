"""Settings with a pool, to be traced."""

from tools.packages.base_settings import *

DATABASES = {
    "default": {
        "ENGINE": "django_lakebase",
        "OPTIONS": {"pool": {"min_size": 1, "max_size": 2}},
    }
}
