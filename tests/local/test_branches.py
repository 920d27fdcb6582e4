"""Projects and branches: made, copied, changed, guarded, expired."""

import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from databricks.sdk.service.postgres import Branch, BranchSpec
from google.protobuf.duration_pb2 import Duration

from tests.local.conftest import Refused

FOREVER = {"spec": {"no_expiry": True}}


@pytest.fixture
def branches(api, local):
    """Give a function that makes a branch, which goes away after the test."""
    project = local.facts["project"]
    made = []

    def make(branch_id, **spec):
        body = {"spec": spec or FOREVER["spec"]}
        name = f"{project}/branches?branch_id={branch_id}"
        branch = api.do("POST", name, body)
        made.append(branch["name"])
        return branch

    yield make
    free = {"spec": {"is_protected": False}}
    for name in reversed(made):
        if not api.is_gone(name):
            api.do("PATCH", f"{name}?update_mask=spec.is_protected", free)
            api.do("DELETE", f"{name}?purge=true")


def host_of(api, branch):
    """Return the host of the branch's read-write endpoint."""
    [endpoint] = api.ask("GET", f"{branch}/endpoints")["endpoints"]
    return endpoint["status"]["hosts"]["host"]


def test_a_branch_is_a_copy(api, local, branches, dial, dial_until):
    """Rows, databases and roles are there, and from then on both go their own way."""
    owner = local.facts["owner"]
    with dial(user=owner) as session:
        session.execute("CREATE TABLE copied AS SELECT 1 AS n")
        session.execute("CREATE ROLE only_before")
    try:
        branch = branches("copy")
        with dial(user=owner) as session:
            session.execute("INSERT INTO copied VALUES (2)")
        host = host_of(api, branch["name"])
        with dial_until(host=host, user=owner) as session:
            count = session.execute("SELECT count(*) FROM copied").fetchone()
            session.execute("DROP TABLE copied")
            session.execute("DROP ROLE only_before")
        with dial(user=owner) as session:
            kept = session.execute("SELECT count(*) FROM copied").fetchone()
    finally:
        with dial(user=owner) as session:
            session.execute("DROP TABLE copied")
            session.execute("DROP ROLE only_before")

    assert (count, kept) == ((1,), (2,))
    status = branch["status"]
    assert status["current_state"] == "READY"
    assert status["source_branch"] == local.facts["branch"]
    assert status["logical_size_bytes"] > 1000000
    assert "spec" not in branch


def test_the_sdk_makes_a_branch_and_waits(owner, local):
    """Polling the operation, as it always does."""
    spec = BranchSpec(ttl=Duration(seconds=3600))
    made = owner.postgres.create_branch(
        local.facts["project"], Branch(spec=spec), "by-sdk"
    ).wait()

    names = [b.name for b in owner.postgres.list_branches(local.facts["project"])]
    owner.postgres.delete_branch(made.name).wait()

    assert made.name in names
    assert made.status.expire_time is not None


def test_a_new_branch_refuses_logins_for_a_moment(api, local, branches, dial):
    """As the service does, while its roles spread; then the same token is good."""
    host = host_of(api, branches("fresh")["name"])

    with pytest.raises(psycopg.OperationalError, match="External authorization failed"):
        dial(host=host)


def test_a_branch_of_a_branch(api, local, branches):
    """Has it for its parent, which cannot go before it."""
    parent = branches("parent")["name"]
    child = branches("child", source_branch=parent, no_expiry=True)

    assert child["status"]["source_branch"] == parent
    with pytest.raises(Refused, match="with children"):
        api.do("DELETE", parent)


def test_a_branch_expires(api, local, branches, dial_until):
    """It is really gone, with its connections."""
    name = branches("brief")["name"]
    session = dial_until(host=host_of(api, name))
    api.do("PATCH", f"{name}?update_mask=spec.ttl", {"spec": {"ttl": "1s"}})
    deadline = time.monotonic() + 60
    while not api.is_gone(name):
        assert time.monotonic() < deadline

    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT pg_sleep(20)")


def test_what_a_mask_names_is_changed(api, branches):
    """And nothing else; words may be joined as JSON does it."""
    name = branches("masked")["name"]
    both = {"spec": {"ttl": "600s", "is_protected": True}}

    first = api.do("PATCH", f"{name}?update_mask=spec.ttl", both)
    last = api.do("PATCH", f"{name}?update_mask=spec.noExpiry", FOREVER)
    third = api.do("PATCH", f"{name}?update_mask=spec.isProtected", both)

    assert "expire_time" in first["status"]
    assert first["status"]["is_protected"] is False
    assert "expire_time" not in last["status"]
    assert third["status"]["is_protected"] is True
    with pytest.raises(Refused, match="cannot delete protected branch"):
        api.do("DELETE", name)


def test_an_existing_branch_may_be_changed_by_making_it(api, local, branches):
    """With replace_existing; without, it is a conflict."""
    name = branches("twice")["name"]
    path = f"{local.facts['project']}/branches?branch_id=twice"

    with pytest.raises(Refused, match="branch with such id already exists") as caught:
        api.do("POST", path, FOREVER)
    changed = api.do("POST", f"{path}&replace_existing=true", {"spec": {"ttl": "900s"}})

    assert (caught.value.status, caught.value.code) == (409, "ALREADY_EXISTS")
    assert changed["name"] == name
    assert "expire_time" in changed["status"]


def late(days):
    """Return a moment *days* from now."""
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


@pytest.mark.parametrize(
    ("query", "spec", "said"),
    [
        ("", {}, "'branch_id' is required"),
        ("branch_id=Big", {}, "branch_id must match pattern .*, got 'Big'"),
        ("branch_id=ok", {}, "'spec.ttl', 'spec.expire_time' or 'spec.no_expiry'"),
        ("branch_id=ok", {"ttl": "60s", "no_expiry": True}, "Only one of"),
        ("branch_id=ok", {"no_expiry": False}, "may only be true"),
        ("branch_id=ok", {"no_expiry": "yes"}, "must be true or false"),
        ("branch_id=ok", {"ttl": "720h"}, "duration in seconds"),
        ("branch_id=ok", {"ttl": "2592060s"}, "exceeds the maximum expiration time"),
        ("branch_id=ok", {"expire_time": late(-1)}, "in the future"),
        ("branch_id=ok", {"expire_time": late(31)}, "exceeds the maximum"),
        ("branch_id=ok", {"expire_time": "soon"}, "must be a timestamp"),
        ("branch_id=ok", {"ttl": "60s", "is_protected": True}, "protected branch"),
        ("branch_id=ok", {"no_expiry": True, "source_branch": "x"}, "is not in"),
        (
            "branch_id=ok",
            {"no_expiry": True, "source_branch_time": late(0)},
            "not supported by the local Lakebase",
        ),
    ],
)
def test_branches_that_cannot_be_made(api, local, query, spec, said):
    """Nothing is begun."""
    with pytest.raises(Refused, match=said) as caught:
        api.do("POST", f"{local.facts['project']}/branches?{query}", {"spec": spec})

    assert caught.value.status == 400
    with pytest.raises(Refused, match="branch id not found"):
        api.ask("GET", f"{local.facts['project']}/branches/ok")


def test_a_deleted_branch_can_be_had_back(api, local, branches, dial, dial_until):
    """With its rows, until it is purged; meanwhile its name is taken."""
    name = branches("undead")["name"]
    host = host_of(api, name)
    with dial_until(host=host, user=local.facts["owner"]) as session:
        session.execute("CREATE TABLE kept AS SELECT 5 AS n")
    listed = f"{local.facts['project']}/branches"

    api.do("DELETE", name)
    live = [b["name"] for b in api.ask("GET", listed)["branches"]]
    deleted = api.ask("GET", f"{listed}?show_deleted=true")["branches"][-1]["status"]
    with pytest.raises(Refused, match="branch with such id already exists"):
        api.do("POST", f"{listed}?branch_id=undead", FOREVER)
    with pytest.raises(psycopg.OperationalError, match="endpoint cannot be found"):
        dial(host=host)
    back = api.do("POST", f"{name}/undelete", {})
    with dial_until(host=host, user=local.facts["owner"]) as session:
        row = session.execute("SELECT n FROM kept").fetchone()

    assert live == [local.facts["branch"]]
    assert deleted["current_state"] == "DELETED"
    assert deleted["delete_time"] < deleted["purge_time"]
    assert back["status"]["current_state"] == "READY"
    assert row == (5,)
    with pytest.raises(Refused, match="is not deleted"):
        api.do("POST", f"{name}/undelete", {})
    with pytest.raises(Refused, match="branch id not found"):
        api.do("POST", f"{listed}/none/undelete", {})


def test_the_default_branch_is_guarded(api, local):
    """It goes with its project only, and cannot expire."""
    branch = local.facts["branch"]

    with pytest.raises(Refused, match="Cannot delete root branch") as caught:
        api.do("DELETE", branch)
    with pytest.raises(Refused, match="default branch cannot have"):
        api.do("PATCH", f"{branch}?update_mask=spec.ttl", {"spec": {"ttl": "60s"}})

    assert caught.value.code == "BAD_REQUEST"
    info = caught.value.body["details"][0]
    assert info["metadata"] == {"declarative_context": "MANAGED_BY_PARENT"}


@pytest.mark.parametrize("mask", ["", "name", "spec.no_such"])
def test_masks_that_name_nothing(api, local, mask):
    """A field that does not exist changes nothing; another path is refused."""
    path = f"{local.facts['branch']}?update_mask={mask}"
    if mask == "spec.no_such":
        assert api.do("PATCH", path, {"spec": {}})["name"] == local.facts["branch"]
        return
    with pytest.raises(Refused, match="update_mask"):
        api.do("PATCH", path, {"spec": {}})


def test_the_children_of_a_protected_branch_have_passwords_of_their_own(
    api, local, branches, dial, dial_until
):
    """A password that leaks from a copy must not open the original."""
    parent = branches("guarded", no_expiry=True, is_protected=True)["name"]
    child = branches("free", no_expiry=True, source_branch=parent)["name"]
    native = {
        "user": local.facts["native_user"],
        "password": local.facts["native_password"],
    }

    dial_until(host=host_of(api, parent), **native).close()
    dial_until(host=host_of(api, child)).close()
    new = api.ask("POST", f"{child}/roles/native-user/password", {})["password"]
    with pytest.raises(psycopg.OperationalError, match="password authentication"):
        dial(host=host_of(api, child), **native)
    with dial_until(host=host_of(api, child), **{**native, "password": new}) as session:
        assert session.execute("SELECT current_user").fetchone() == ("native_user",)


def test_an_operation_stays_readable(api, local, branches):
    """Also when what it made is gone; one that never was is not found."""
    name = f"{local.facts['project']}/branches?branch_id=gone"
    operation = api.ask("POST", name, FOREVER)
    while not operation["done"]:
        operation = api.ask("GET", operation["name"])
    api.do("DELETE", operation["response"]["name"])

    again = api.ask("GET", operation["name"])

    assert again == operation
    assert again["metadata"]["@type"].endswith("v1.BranchOperationMetadata")
    with pytest.raises(Refused, match="operation id not found"):
        api.ask("GET", f"{local.facts['branch']}/operations/none")


def test_lists_come_in_pages(api, local, branches):
    """Each with the next one's token, the last without."""
    branches("page-one")
    branches("page-two")
    found, token = [], ""
    while True:
        page = api.ask(
            "GET", f"{local.facts['project']}/branches?page_size=1&page_token={token}"
        )
        found += [branch["branch_id"] for branch in page["branches"]]
        token = page["next_page_token"]
        if not token:
            break

    assert found == ["production", "page-one", "page-two"]
    for wrong in ("page_size=-1", "page_size=x", "page_token=x"):
        with pytest.raises(Refused, match="page_"):
            api.ask("GET", f"{local.facts['project']}/branches?{wrong}")


def test_a_project_of_its_own(api, local, dial_until):
    """Has a server of its own, its maker as the owner, and no native login."""
    spec = {"display_name": "Shop", "history_retention_duration": "172800s"}
    project = api.do("POST", "projects?project_id=shop", {"spec": spec})
    try:
        branch = project["status"]["default_branch"]
        host = host_of(api, branch)
        with dial_until(host=host, user=local.facts["owner"]) as session:
            row = session.execute("SELECT current_database()").fetchone()
        with pytest.raises(Refused, match="project with such id already exists"):
            api.do("POST", "projects?project_id=shop", {})
        renamed = api.do(
            "PATCH",
            "projects/shop?update_mask=spec.display_name",
            {"spec": {"display_name": "Store"}},
        )
        names = [p["name"] for p in api.ask("GET", "projects")["projects"]]
        api.do("DELETE", "projects/shop")
        gone = api.is_gone("projects/shop")
        back = api.do("POST", "projects/shop/undelete", {})
        dial_until(host=host, user=local.facts["owner"]).close()
    finally:
        api.do("DELETE", "projects/shop?purge=true")

    assert row == ("databricks_postgres",)
    assert project["status"]["enable_pg_native_login"] is False
    assert project["status"]["history_retention_duration"] == "172800s"
    assert renamed["status"]["display_name"] == "Store"
    assert names == [local.facts["project"], "projects/shop"]
    assert gone
    assert back["status"] == renamed["status"]
    with pytest.raises(Refused, match="project id not found"):
        api.do("POST", "projects/shop/undelete", {})
    with pytest.raises(Refused, match="project id not found"):
        api.ask("GET", branch)


@pytest.mark.parametrize(
    ("query", "spec", "said"),
    [
        ("", {}, "'project_id' is required"),
        ("project_id=9", {}, "must match pattern"),
        ("project_id=x", {"pg_version": 3}, "'spec.pg_version' must be"),
        ("project_id=x", {"history_retention_duration": "1s"}, "between 172800s"),
        ("project_id=x", {"enable_pg_native_login": 1}, "must be true or false"),
    ],
)
def test_projects_that_cannot_be_made(api, query, spec, said):
    """Nothing is begun."""
    with pytest.raises(Refused, match=said):
        api.do("POST", f"projects?{query}", {"spec": spec})


def test_the_first_project_stays(api, local):
    """The variables lead to it."""
    with pytest.raises(Refused, match="cannot be deleted"):
        api.do("DELETE", local.facts["project"])
