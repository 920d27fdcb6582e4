"""Settings with a health endpoint."""

from tools.packages.base_settings import *

INSTALLED_APPS += ["health_check"]
ROOT_URLCONF = "tools.packages.django_health_check.urls"
