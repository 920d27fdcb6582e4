"""Settings with a task queue in the database."""

from tools.packages.base_settings import *

INSTALLED_APPS += ["procrastinate.contrib.django", "tools.packages.procrastinate.jobs"]
