"""A user's project with tests, and no test databases of earlier tests."""

import pytest

from tests.helpers.shop_test_runs import opened


@pytest.fixture(scope="module")
def opened_shop(lakebase, tmp_path_factory):
    """Yield the project with its real database."""
    with opened(lakebase, tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture
def shop(opened_shop, local):
    """Return the project without test databases of earlier tests."""
    yield opened_shop
    opened_shop.drop_test_databases()
