"""A project with a queue in its database."""

from tests.settings import *

INSTALLED_APPS += ["procrastinate.contrib.django", "tools.packages.procrastinate.jobs"]
