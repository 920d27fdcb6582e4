"""The search for the endpoint of a host, in the lists of a workspace."""

from types import SimpleNamespace

import pytest
from databricks.sdk.errors import NotFound, PermissionDenied, TooManyRequests
from databricks.sdk.service.postgres import Branch, Endpoint, Project, ProjectStatus

from django_lakebase.auth import workspace
from django_lakebase.auth.workspace import EndpointInfo, Workspace
from django_lakebase.config.target import Login
from django_lakebase.failures.classify import KnownFailure

needs_default_branch = pytest.mark.skipif(
    not hasattr(ProjectStatus, "default_branch"),
    reason="this version of the SDK does not report the default branch",
)
DOMAIN = "database.eastus2.azuredatabricks.net"


class Api:
    """
    The lists of the SDK's API; *calls* has the parents that were listed.

    *branches* maps a branch, such as ``a/main``, to the first labels of its endpoints'
    hosts. The first branch of a project is its default branch. *errors* maps a parent
    to the error of its list.
    """

    def __init__(self, branches, errors=None):
        self.calls, self._branches, self._errors = [], branches, errors or {}
        self._projects: dict[str, str] = {}
        for name in branches:
            self._projects.setdefault(
                f"projects/{name.split('/')[0]}", self._path(name)
            )

    @staticmethod
    def _path(name):
        project, branch = name.split("/")
        return f"projects/{project}/branches/{branch}"

    def _count(self, parent):
        self.calls.append(parent)
        if parent in self._errors:
            raise self._errors[parent]

    def list_projects(self):
        self._count("")
        for name, default in self._projects.items():
            status = {"default_branch": default}
            yield Project.from_dict({"name": name, "status": status})

    def list_branches(self, parent):
        self._count(parent)
        for name in map(self._path, self._branches):
            if name.startswith(f"{parent}/"):
                yield Branch.from_dict({"name": name})

    def list_endpoints(self, parent):
        self._count(parent)
        for name, labels in self._branches.items():
            for label in labels if self._path(name) == parent else ():
                hosts = {"host": f"{label}.{DOMAIN}"}
                yield Endpoint.from_dict(
                    {"name": f"{parent}/endpoints/{label}", "status": {"hosts": hosts}}
                )


@pytest.fixture
def find(monkeypatch):
    """Yield a function that looks for a host in the lists of an Api."""

    def find_in(api, label):
        client = SimpleNamespace(postgres=api)
        monkeypatch.setattr(workspace, "new_client", lambda _: client)
        return Workspace(Login("", "it")).find_endpoint(f"{label}.{DOMAIN}")

    workspace.forget_clients()
    yield find_in
    workspace.forget_clients()


@needs_default_branch
def test_search_stops_at_the_first_match(find):
    api = Api({"a/main": ["ep-1"], "b/main": ["ep-2", "ep-2"], "c/main": ["ep-3"]})

    found = find(api, "ep-2")

    assert found == "projects/b/branches/main/endpoints/ep-2"
    assert api.calls == ["", "projects/a/branches/main", "projects/b/branches/main"]


@needs_default_branch
def test_default_branches_are_searched_before_all_others(find):
    """Most hosts belong to one, and a project may have hundreds of others."""
    api = Api({"a/main": ["ep-1"], "a/dev": ["ep-2"], "b/main": ["ep-3"]})

    found = find(api, "ep-2")

    assert found == "projects/a/branches/dev/endpoints/ep-2"
    assert api.calls[1:3] == ["projects/a/branches/main", "projects/b/branches/main"]
    # The default branch is not listed again.
    assert api.calls[3:] == ["projects/a", "projects/a/branches/dev"]


@pytest.mark.parametrize("error", [PermissionDenied("no"), NotFound("project id")])
@pytest.mark.parametrize("parent", ["projects/a/branches/main", "projects/a"])
def test_project_that_may_not_be_listed_is_skipped(find, error, parent):
    """So is a project that is deleted during the search."""
    api = Api({"a/main": [], "b/main": [], "b/dev": ["ep-2"]}, {parent: error})

    assert find(api, "ep-2") == "projects/b/branches/dev/endpoints/ep-2"


@pytest.mark.parametrize(
    ("parent", "error"),
    [
        ("", PermissionDenied("no")),
        ("projects/a/branches/main", TooManyRequests("slow down")),
        ("projects/a/branches/main", PermissionDenied("Invalid access token")),
    ],
)
def test_failure_that_is_not_about_one_project_ends_the_search(find, parent, error):
    """An incomplete list must not become the error that no endpoint was found."""
    api = Api({"a/main": [], "b/main": ["ep-2"]}, {parent: error})

    with pytest.raises(type(error)):
        find(api, "ep-2")


def test_host_that_is_not_found_is_an_error_that_lists_ten_endpoints(find):
    labels = [f"ep-{number}" for number in range(13)]

    with pytest.raises(KnownFailure) as caught:
        find(Api({"a/main": labels}), "ep-x")

    visible = str(caught.value.facts["visible"])
    assert caught.value.failure_id == "endpoint-not-found-for-host"
    assert f"projects/a/branches/main/endpoints/ep-0 (ep-0.{DOMAIN})" in visible
    assert "ep-9" in visible
    assert "ep-10" not in visible
    assert visible.endswith(", and 3 more.")


def test_error_without_any_endpoint_says_so(find):
    with pytest.raises(KnownFailure) as caught:
        find(Api({}), "ep-x")

    assert caught.value.facts["visible"] == "It can see no endpoint at all."


INFO = EndpointInfo(
    name="projects/a/branches/b/endpoints/e",
    host=f"ep-1.{DOMAIN}",
    state="ACTIVE",
    is_read_write=True,
    is_disabled=False,
    hosts=(f"ep-1.{DOMAIN}", f"ep-1-pooler.{DOMAIN}"),
)


@pytest.mark.parametrize("suffix", ["", "-ro", "-pooler", "-ro-pooler"])
def test_all_hosts_of_an_endpoint_belong_to_it(suffix):
    """Also those that older versions of the SDK do not report."""
    assert INFO.has_host(f"EP-1{suffix}.{DOMAIN}")
    assert INFO.has_host(f"ep-1.{DOMAIN},ep-1{suffix}.{DOMAIN}")
    # A connection could reach the other host.
    assert not INFO.has_host(f"ep-2.{DOMAIN},ep-1{suffix}.{DOMAIN}")


@pytest.mark.parametrize(
    "host", ["ep-1.example.com", f"ep-10.{DOMAIN}", f"ep-1-r.{DOMAIN}", "ep-1"]
)
def test_other_hosts_do_not_belong_to_an_endpoint(host):
    assert not INFO.has_host(host)
