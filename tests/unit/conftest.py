"""Fixtures of the unit tests, which need neither a server nor a network."""

import os

import pytest
from hypothesis import settings

from django_lakebase.local.client import VARIABLE_PREFIXES

# No deadline: machines differ in speed.
settings.register_profile("suite", max_examples=80, deadline=None)
settings.load_profile("suite")

ENVIRONMENT = {
    "DATABRICKS_HOST": "https://shop.cloud.databricks.com",
    "DATABRICKS_CLIENT_ID": "client",
    "DATABRICKS_CLIENT_SECRET": "secret of the environment",
    "ENDPOINT_NAME": "projects/shop/branches/production/endpoints/primary",
    "PGHOST": "ep-calm-sea-1234abcd.database.us-east-1.cloud.databricks.com",
    "PGPORT": "5432",
    "PGDATABASE": "databricks_postgres",
    "PGUSER": "client",
}


@pytest.fixture(scope="session")
def lakebase():
    """Fail a test that would start the emulator."""
    pytest.fail("Unit tests do not start the emulator: use tests/integration instead.")


@pytest.fixture
def workspace_environment(monkeypatch):
    """Set only the variables of a workspace that no test contacts."""
    for name in [name for name in os.environ if name.startswith(VARIABLE_PREFIXES)]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
