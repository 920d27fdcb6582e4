"""What docs/howto/test.md tells users of pytest-django to write."""

import pytest

pytest_plugins = ["django_lakebase.local.pytest_plugin"]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    lakebase, django_db_modify_db_settings_parallel_suffix
):
    """Have the local Lakebase running before the test database is made."""
