"""One local Lakebase for all servers, whose tokens live for seconds."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from django_lakebase.local.client import LocalLakebase
from tests.helpers.programs import SITE, TOP, TTL, until_no_connection


@pytest.fixture(scope="session")
def short_lived() -> Iterator[LocalLakebase]:
    """Give a local Lakebase with the tables of the site."""
    with LocalLakebase.start("--token-ttl", str(TTL)) as local:
        subprocess.run(
            [sys.executable, "-m", "django", "migrate", "--verbosity=0"],
            cwd=TOP,
            env={**os.environ, **local.env, **SITE},
            check=True,
        )
        yield local


@pytest.fixture
def busy(short_lived: LocalLakebase) -> Iterator[LocalLakebase]:
    """Give it in good health, with fresh counters and without connections."""
    short_lived.clear_faults()
    until_no_connection(short_lived)
    short_lived.reset_counters()
    yield short_lived
    short_lived.clear_faults()
