"""A project with a queue in its database."""

from tests.settings import *

INSTALLED_APPS += ["procrastinate.contrib.django", "tests.packages.procrastinate.jobs"]
