"""Projects and branches over the API: creation, changes, protection and expiry."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from databricks.sdk.service.postgres import Branch, BranchSpec
from google.protobuf.duration_pb2 import Duration

from tests.local.rest_api import ApiError

NO_EXPIRY = {"spec": {"no_expiry": True}}


@pytest.fixture
def create_branch(api, local):
    """Return a function that creates a branch, which is purged after the test."""
    project = local.facts["project"]
    names = []

    def create_branch(branch_id, **spec):
        body = {"spec": spec or NO_EXPIRY["spec"]}
        path = f"{project}/branches?branch_id={branch_id}"
        branch = api.run_operation("POST", path, body)
        names.append(branch["name"])
        return branch

    yield create_branch
    unprotected = {"spec": {"is_protected": False}}
    for name in reversed(names):
        if api.exists(name):
            api.run_operation(
                "PATCH", f"{name}?update_mask=spec.is_protected", unprotected
            )
            api.run_operation("DELETE", f"{name}?purge=true")


def get_host(api, branch):
    """Return the host of the branch's read-write endpoint."""
    [endpoint] = api.request("GET", f"{branch}/endpoints")["endpoints"]
    return endpoint["status"]["hosts"]["host"]


def test_six_branches_are_created_at_the_same_time(api, local):
    """Each copy occupies two of the server's WAL senders."""
    path = f"{local.facts['project']}/branches"
    names = [f"{path}/parallel-{number}" for number in range(6)]

    def create(name):
        branch_id = name.rpartition("/")[2]
        api.run_operation("POST", f"{path}?branch_id={branch_id}", NO_EXPIRY)

    try:
        with ThreadPoolExecutor(len(names)) as threads:
            list(threads.map(create, names))
    finally:
        for name in names:
            if api.exists(name):
                api.run_operation("DELETE", f"{name}?purge=true")


def test_branch_is_an_independent_copy_of_rows_and_roles(
    api, local, create_branch, connect, connect_when_ready
):
    owner = local.facts["owner"]
    with connect(user=owner) as session:
        session.execute("CREATE TABLE copied AS SELECT 1 AS n")
        session.execute("CREATE ROLE role_before_copy")
    try:
        branch = create_branch("copy")
        with connect(user=owner) as session:
            session.execute("INSERT INTO copied VALUES (2)")
        host = get_host(api, branch["name"])
        with connect_when_ready(host=host, user=owner) as session:
            in_branch = session.execute("SELECT count(*) FROM copied").fetchone()
            session.execute("DROP TABLE copied")
            session.execute("DROP ROLE role_before_copy")
        with connect(user=owner) as session:
            in_parent = session.execute("SELECT count(*) FROM copied").fetchone()
    finally:
        with connect(user=owner) as session:
            session.execute("DROP TABLE copied")
            session.execute("DROP ROLE role_before_copy")

    assert (in_branch, in_parent) == ((1,), (2,))
    status = branch["status"]
    assert status["current_state"] == "READY"
    assert status["source_branch"] == local.facts["branch"]
    assert status["logical_size_bytes"] > 1000000
    assert "spec" not in branch


def test_sdk_waits_for_the_operation_that_creates_a_branch(owner_client, local):
    project, postgres = local.facts["project"], owner_client.postgres
    spec = BranchSpec(ttl=Duration(seconds=3600))
    branch = postgres.create_branch(project, Branch(spec=spec), "by-sdk").wait()

    names = [listed.name for listed in postgres.list_branches(project)]
    postgres.delete_branch(branch.name).wait()

    assert branch.name in names
    assert branch.status.expire_time is not None


def test_new_branch_rejects_logins_at_first(api, create_branch, login_error):
    """On the service the roles of a new branch take a short time to propagate."""
    host = get_host(api, create_branch("fresh")["name"])

    assert "External authorization failed" in login_error(host=host)


def test_branch_with_children_cannot_be_deleted(api, create_branch):
    parent = create_branch("parent")["name"]
    child = create_branch("child", source_branch=parent, no_expiry=True)

    assert child["status"]["source_branch"] == parent
    with pytest.raises(ApiError, match="with children"):
        api.run_operation("DELETE", parent)


def test_expired_branch_is_deleted_and_its_sessions_end(
    api, create_branch, connect_when_ready
):
    name = create_branch("brief")["name"]
    session = connect_when_ready(host=get_host(api, name))
    api.run_operation("PATCH", f"{name}?update_mask=spec.ttl", {"spec": {"ttl": "1s"}})
    deadline = time.monotonic() + 60
    while api.exists(name):
        assert time.monotonic() < deadline

    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT pg_sleep(20)")


def test_update_mask_limits_a_change_to_the_named_fields(api, create_branch):
    """The mask may name a field in snake case or camel case."""
    name = create_branch("masked")["name"]
    both = {"spec": {"ttl": "600s", "is_protected": True}}

    with_ttl = api.run_operation("PATCH", f"{name}?update_mask=spec.ttl", both)
    without_expiry = api.run_operation(
        "PATCH", f"{name}?update_mask=spec.noExpiry", NO_EXPIRY
    )
    protected = api.run_operation("PATCH", f"{name}?update_mask=spec.isProtected", both)

    assert "expire_time" in with_ttl["status"]
    assert with_ttl["status"]["is_protected"] is False
    assert "expire_time" not in without_expiry["status"]
    assert protected["status"]["is_protected"] is True
    with pytest.raises(ApiError, match="cannot delete protected branch"):
        api.run_operation("DELETE", name)


def test_replace_existing_changes_a_branch_instead_of_reporting_a_conflict(
    api, local, create_branch
):
    name = create_branch("twice")["name"]
    path = f"{local.facts['project']}/branches?branch_id=twice"

    with pytest.raises(ApiError, match="branch with such id already exists") as caught:
        api.run_operation("POST", path, NO_EXPIRY)
    changed = api.run_operation(
        "POST", f"{path}&replace_existing=true", {"spec": {"ttl": "900s"}}
    )

    assert (caught.value.status, caught.value.code) == (409, "ALREADY_EXISTS")
    assert changed["name"] == name
    assert "expire_time" in changed["status"]


def in_days(days):
    """Return the time *days* days from now, in the format of the API."""
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


@pytest.mark.parametrize(
    ("query", "spec", "message"),
    [
        ("", {}, "'branch_id' is required"),
        ("branch_id=Big", {}, "branch_id must match pattern .*, got 'Big'"),
        ("branch_id=ok", {}, "'spec.ttl', 'spec.expire_time' or 'spec.no_expiry'"),
        ("branch_id=ok", {"ttl": "60s", "no_expiry": True}, "Only one of"),
        ("branch_id=ok", {"no_expiry": False}, "may only be true"),
        ("branch_id=ok", {"no_expiry": "yes"}, "must be true or false"),
        ("branch_id=ok", {"ttl": "720h"}, "duration in seconds"),
        ("branch_id=ok", {"ttl": "2592060s"}, "exceeds the maximum expiration time"),
        ("branch_id=ok", {"expire_time": in_days(-1)}, "in the future"),
        ("branch_id=ok", {"expire_time": in_days(31)}, "exceeds the maximum"),
        ("branch_id=ok", {"expire_time": "soon"}, "must be a timestamp"),
        ("branch_id=ok", {"ttl": "60s", "is_protected": True}, "protected branch"),
        ("branch_id=ok", {"no_expiry": True, "source_branch": "x"}, "is not in"),
        (
            "branch_id=ok",
            {"no_expiry": True, "source_branch_time": in_days(0)},
            "not supported by the local Lakebase",
        ),
    ],
)
def test_invalid_branch_is_rejected_and_not_created(api, local, query, spec, message):
    path = f"{local.facts['project']}/branches?{query}"

    with pytest.raises(ApiError, match=message) as caught:
        api.run_operation("POST", path, {"spec": spec})

    assert caught.value.status == 400
    with pytest.raises(ApiError, match="branch id not found"):
        api.request("GET", f"{local.facts['project']}/branches/ok")


def test_deleted_branch_can_be_undeleted_with_its_rows(
    api, local, create_branch, login_error, connect_when_ready
):
    """Until it is purged, its name cannot be used for another branch."""
    name = create_branch("restored")["name"]
    host = get_host(api, name)
    with connect_when_ready(host=host, user=local.facts["owner"]) as session:
        session.execute("CREATE TABLE kept AS SELECT 5 AS n")
    branches = f"{local.facts['project']}/branches"

    api.run_operation("DELETE", name)
    names = [branch["name"] for branch in api.request("GET", branches)["branches"]]
    with_deleted = api.request("GET", f"{branches}?show_deleted=true")["branches"]
    deleted = with_deleted[-1]["status"]
    with pytest.raises(ApiError, match="branch with such id already exists"):
        api.run_operation("POST", f"{branches}?branch_id=restored", NO_EXPIRY)
    assert "endpoint cannot be found" in login_error(host=host)
    restored = api.run_operation("POST", f"{name}/undelete", {})
    with connect_when_ready(host=host, user=local.facts["owner"]) as session:
        row = session.execute("SELECT n FROM kept").fetchone()

    assert names == [local.facts["branch"]]
    assert deleted["current_state"] == "DELETED"
    assert deleted["delete_time"] < deleted["purge_time"]
    assert restored["status"]["current_state"] == "READY"
    assert row == (5,)
    with pytest.raises(ApiError, match="is not deleted"):
        api.run_operation("POST", f"{name}/undelete", {})
    with pytest.raises(ApiError, match="branch id not found"):
        api.run_operation("POST", f"{branches}/none/undelete", {})


def test_default_branch_cannot_be_deleted_and_cannot_expire(api, local):
    """It is deleted together with its project."""
    branch = local.facts["branch"]

    with pytest.raises(ApiError, match="Cannot delete root branch") as caught:
        api.run_operation("DELETE", branch)
    with pytest.raises(ApiError, match="default branch cannot have"):
        api.run_operation(
            "PATCH", f"{branch}?update_mask=spec.ttl", {"spec": {"ttl": "60s"}}
        )

    assert caught.value.code == "BAD_REQUEST"
    info = caught.value.body["details"][0]
    assert info["metadata"] == {"declarative_context": "MANAGED_BY_PARENT"}


@pytest.mark.parametrize("mask", ["", "name", "spec.no_such"])
def test_update_mask_outside_of_spec_is_rejected(api, local, mask):
    """An unknown field of spec is accepted and changes nothing."""
    path = f"{local.facts['branch']}?update_mask={mask}"
    if mask == "spec.no_such":
        unchanged = api.run_operation("PATCH", path, {"spec": {}})
        assert unchanged["name"] == local.facts["branch"]
        return
    with pytest.raises(ApiError, match="update_mask"):
        api.run_operation("PATCH", path, {"spec": {}})


def test_child_of_a_protected_branch_gets_new_native_passwords(
    api, create_branch, login_error, connect_when_ready, native_login
):
    """A password that leaks from a copy must not be valid in the original."""
    parent = create_branch("protected", no_expiry=True, is_protected=True)["name"]
    child = create_branch("child", no_expiry=True, source_branch=parent)["name"]
    host = get_host(api, child)

    connect_when_ready(host=get_host(api, parent), **native_login).close()
    connect_when_ready(host=host).close()
    new = api.request("POST", f"{child}/roles/native-user/password", {})
    assert "password authentication" in login_error(host=host, **native_login)
    new_login = {**native_login, "password": new["password"]}
    with connect_when_ready(host=host, **new_login) as session:
        assert session.execute("SELECT current_user").fetchone() == ("native_user",)


def test_finished_operation_can_be_read_after_its_branch_was_deleted(api, local):
    path = f"{local.facts['project']}/branches?branch_id=deleted"
    operation = api.request("POST", path, NO_EXPIRY)
    while not operation["done"]:
        operation = api.request("GET", operation["name"])
    api.run_operation("DELETE", operation["response"]["name"])

    reread = api.request("GET", operation["name"])

    assert reread == operation
    assert reread["metadata"]["@type"].endswith("v1.BranchOperationMetadata")
    with pytest.raises(ApiError, match="operation id not found"):
        api.request("GET", f"{local.facts['branch']}/operations/none")


def test_branches_are_listed_in_pages(api, local, create_branch):
    """Each page has the token of the next page; the last has an empty one."""
    create_branch("page-one")
    create_branch("page-two")
    ids, token = [], ""
    while True:
        page = api.request(
            "GET", f"{local.facts['project']}/branches?page_size=1&page_token={token}"
        )
        ids += [branch["branch_id"] for branch in page["branches"]]
        token = page["next_page_token"]
        if not token:
            break

    assert ids == ["production", "page-one", "page-two"]
    for invalid in ("page_size=-1", "page_size=x", "page_token=x"):
        with pytest.raises(ApiError, match="page_"):
            api.request("GET", f"{local.facts['project']}/branches?{invalid}")


def test_project_is_created_renamed_deleted_undeleted_and_purged(
    api, local, connect_when_ready
):
    """Its creator is its owner, it has its own server, and native login is off."""
    spec = {"display_name": "Shop", "history_retention_duration": "172800s"}
    project = api.run_operation("POST", "projects?project_id=shop", {"spec": spec})
    try:
        branch = project["status"]["default_branch"]
        host = get_host(api, branch)
        with connect_when_ready(host=host, user=local.facts["owner"]) as session:
            row = session.execute("SELECT current_database()").fetchone()
        with pytest.raises(ApiError, match="project with such id already exists"):
            api.run_operation("POST", "projects?project_id=shop", {})
        renamed = api.run_operation(
            "PATCH",
            "projects/shop?update_mask=spec.display_name",
            {"spec": {"display_name": "Store"}},
        )
        names = [p["name"] for p in api.request("GET", "projects")["projects"]]
        api.run_operation("DELETE", "projects/shop")
        exists_after_delete = api.exists("projects/shop")
        restored = api.run_operation("POST", "projects/shop/undelete", {})
        connect_when_ready(host=host, user=local.facts["owner"]).close()
    finally:
        api.run_operation("DELETE", "projects/shop?purge=true")

    assert row == ("databricks_postgres",)
    assert project["status"]["enable_pg_native_login"] is False
    assert project["status"]["history_retention_duration"] == "172800s"
    assert renamed["status"]["display_name"] == "Store"
    assert names == [local.facts["project"], "projects/shop"]
    assert not exists_after_delete
    assert restored["status"] == renamed["status"]
    with pytest.raises(ApiError, match="project id not found"):
        api.run_operation("POST", "projects/shop/undelete", {})
    with pytest.raises(ApiError, match="project id not found"):
        api.request("GET", branch)


@pytest.mark.parametrize(
    ("query", "spec", "message"),
    [
        ("", {}, "'project_id' is required"),
        ("project_id=9", {}, "must match pattern"),
        ("project_id=x", {"pg_version": 3}, "'spec.pg_version' must be"),
        ("project_id=x", {"history_retention_duration": "1s"}, "between 172800s"),
        ("project_id=x", {"enable_pg_native_login": 1}, "must be true or false"),
    ],
)
def test_invalid_project_is_rejected(api, query, spec, message):
    with pytest.raises(ApiError, match=message):
        api.run_operation("POST", f"projects?{query}", {"spec": spec})


def test_first_project_cannot_be_deleted(api, local):
    """The environment variables name its endpoint."""
    with pytest.raises(ApiError, match="cannot be deleted"):
        api.run_operation("DELETE", local.facts["project"])
