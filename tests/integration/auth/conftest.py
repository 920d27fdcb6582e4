"""A branch that is not the default branch of its project."""

import secrets

import pytest

from django_lakebase.auth.sdk import import_sdk
from tests.helpers.credential_cache import owner_client


@pytest.fixture(scope="module")
def branch(lakebase):
    """Yield a branch that is not the default, with endpoints of both kinds."""
    import_sdk()
    from databricks.sdk.service.postgres import (
        Branch,
        BranchSpec,
        Endpoint,
        EndpointSpec,
        EndpointType,
    )

    api, source = owner_client().postgres, lakebase.facts["branch"]
    project = source.partition("/branches/")[0]
    # A deleted branch keeps its id.
    name = f"searched-{secrets.token_hex(3)}"
    spec = BranchSpec(source_branch=source, no_expiry=True)
    made = api.create_branch(project, Branch(spec=spec), name).wait()
    read_only = EndpointSpec(endpoint_type=EndpointType.ENDPOINT_TYPE_READ_ONLY)
    api.create_endpoint(made.name, Endpoint(spec=read_only), "replica").wait()
    yield {
        endpoint.name.rpartition("/")[2]: endpoint
        for endpoint in api.list_endpoints(made.name)
    }
    api.delete_branch(made.name).wait()
