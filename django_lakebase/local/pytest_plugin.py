"""
The pytest plugin: the fixture ``lakebase``, for projects that use django_lakebase.

pytest loads this module in every run, by the entry point ``lakebase_local``, so it
imports nothing but pytest. The emulator starts when a test requests the fixture.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .client import LocalLakebase


@pytest.fixture(scope="session")
def lakebase() -> "Iterator[LocalLakebase]":
    """Start a local Lakebase, and set the environment variables that lead to it."""
    from .client import VARIABLE_PREFIXES, LocalLakebase

    url = os.environ.get("LAKEBASE_LOCAL_URL")
    if url:
        yield LocalLakebase.running(url)
        return
    before = dict(os.environ)
    with LocalLakebase.start() as local:
        for name in [name for name in os.environ if name.startswith(VARIABLE_PREFIXES)]:
            del os.environ[name]
        os.environ.update(local.env)
        try:
            yield local
        finally:
            os.environ.clear()
            os.environ.update(before)
