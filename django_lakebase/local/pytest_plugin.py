"""
A pytest fixture that gives a project's tests a local Lakebase.

In conftest.py: ``pytest_plugins = ["django_lakebase.local.fixtures"]``, and for
pytest-django::

    @pytest.fixture(scope="session")
    def django_db_modify_db_settings(
        lakebase, django_db_modify_db_settings_parallel_suffix
    ): ...
"""

import os
from collections.abc import Iterator

import pytest

from .client import FOREIGN, LocalLakebase


@pytest.fixture(scope="session")
def lakebase() -> Iterator[LocalLakebase]:
    """Give a local Lakebase, and set the variables that lead to it."""
    url = os.environ.get("LAKEBASE_LOCAL_URL")
    if url:
        yield LocalLakebase.running(url)
        return
    before = dict(os.environ)
    with LocalLakebase.start() as local:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            del os.environ[name]
        os.environ.update(local.env)
        try:
            yield local
        finally:
            os.environ.clear()
            os.environ.update(before)
