"""Settings for Django's test suite on either backend, based on Django's own."""

import json
import os

# This module is next to Django's runtests.py, and each release has its own.
from test_sqlite import *  # type: ignore[import-not-found]  # noqa: F403

# From a variable, so that processes started by the tests get the same databases.
DATABASES = json.loads(os.environ["DJANGO_SUITE_DATABASES"])
TEST_RUNNER = "tools.django_suite.recorder.RecordingRunner"
