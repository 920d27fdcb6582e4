"""
The pytest plugin with the fixture ``lakebase``, for projects that use django_lakebase.

pytest loads this module in every run through the entry point ``lakebase_local``, so it
imports only pytest. The emulator starts when a test requests the fixture.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .client import LocalLakebase


@pytest.fixture(scope="session")
def lakebase() -> "Iterator[LocalLakebase]":
    """
    Start a local Lakebase and set the environment variables for it.

    Under ``lakebase-local run`` the fixture uses the emulator that is already running.
    """
    from .client import VARIABLE_PREFIXES, LocalLakebase

    url = os.environ.get("LAKEBASE_LOCAL_URL")
    if url:
        yield LocalLakebase.running(url)
        return
    original = dict(os.environ)
    with LocalLakebase.start() as local:
        for name in [name for name in os.environ if name.startswith(VARIABLE_PREFIXES)]:
            del os.environ[name]
        os.environ.update(local.env)
        try:
            yield local
        finally:
            os.environ.clear()
            os.environ.update(original)
