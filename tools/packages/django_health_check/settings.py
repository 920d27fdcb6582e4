"""A project with a health endpoint."""

from tests.settings import *

INSTALLED_APPS += ["health_check"]
ROOT_URLCONF = "tools.packages.django_health_check.urls"
