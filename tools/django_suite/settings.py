"""What Django's own tests run with, for either backend: Django's own settings."""

import json
import os

# Found beside Django's runtests.py; each release has its own.
from test_sqlite import *  # type: ignore[import-not-found]  # noqa: F403

# As a variable, so that processes which the tests start find the same.
DATABASES = json.loads(os.environ["DJANGO_SUITE_DATABASES"])
TEST_RUNNER = "tools.django_suite.recorder.Recorder"
