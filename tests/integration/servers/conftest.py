"""A local Lakebase for all server programs, whose tokens expire within seconds."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from django_lakebase.local.client import LocalLakebase
from tests.helpers.app_servers import SITE, TOP, TTL, wait_until_disconnected


@pytest.fixture(scope="session")
def short_lived() -> Iterator[LocalLakebase]:
    """Yield a local Lakebase with the tables of the site."""
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
    """Yield it without faults and connections, and with counters at zero."""
    short_lived.clear_faults()
    wait_until_disconnected(short_lived)
    short_lived.reset_counters()
    yield short_lived
    short_lived.clear_faults()
