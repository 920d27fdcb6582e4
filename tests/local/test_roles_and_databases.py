"""Roles and databases, managed through the API and through SQL."""

import json

import psycopg
import pytest

from tests.local.rest_api import ApiError, RestApi

SELECT_LABEL = (
    "SELECT provider, label FROM pg_seclabels WHERE objtype = 'role' "
    "AND objname = quote_ident(%s)"
)


@pytest.fixture
def branch(local):
    """Return the name of the default branch."""
    return local.facts["branch"]


@pytest.fixture
def create_role(api, branch):
    """Return a function that creates a role, which is deleted after the test."""
    names = []

    def create_role(query="", **spec):
        role = api.run_operation("POST", f"{branch}/roles{query}", {"spec": spec})
        names.append(role["name"])
        return role

    yield create_role
    for name in names:
        if api.exists(name):
            api.run_operation("DELETE", name)


def test_listed_roles_are_those_of_identities_and_the_native_role(api, local, branch):
    """Roles that belong to the service itself are not listed."""
    roles = {
        role["status"]["postgres_role"]: role["status"]
        for role in api.request("GET", f"{branch}/roles")["roles"]
    }

    facts = local.facts
    owner, principal = roles[facts["owner"]], roles[facts["service_principal"]]
    native = roles[facts["native_user"]]
    assert owner["identity_type"] == "USER"
    assert owner["membership_roles"] == ["DATABRICKS_SUPERUSER"]
    assert principal["identity_type"] == "SERVICE_PRINCIPAL"
    assert principal["auth_method"] == "LAKEBASE_OAUTH_V1"
    assert native["identity_type"] == "IDENTITY_TYPE_UNSPECIFIED"
    assert native["auth_method"] == "PG_PASSWORD_SCRAM_SHA_256"
    assert "databricks_superuser" not in roles


def test_role_created_for_an_identity_accepts_its_tokens(create_role, connect):
    name = "0f3d1a5e-5a3e-4f2c-9d43-0c8cf1f0a111"
    role = create_role(
        "?role_id=sp-one", postgres_role=name, identity_type="SERVICE_PRINCIPAL"
    )

    with connect(user=name) as session:
        row = session.execute("SELECT current_user").fetchone()

    assert row == (name,)
    assert role["name"].endswith("/roles/sp-one")
    assert role["status"]["attributes"]["createdb"] is False


@pytest.mark.parametrize("method", ["api", "sql"])
def test_role_of_an_identity_has_the_security_label_of_the_service(
    create_role, connect, local, method
):
    """The label contains the SCIM id of the identity."""
    name, owner = local.facts["developer"], local.facts["owner"]
    developer = RestApi(local.url, local.facts["developer_token"])
    _, _, me = developer.send("GET", "/api/2.0/preview/scim/v2/Me")
    with connect(user=owner) as session:
        if method == "api":
            create_role(postgres_role=name, identity_type="USER")
        else:
            session.execute("SELECT databricks_create_role(%s, 'user')", (name,))
        created = session.execute(SELECT_LABEL, (name,)).fetchall()
        session.execute(f'DROP ROLE "{name}"')
        dropped = session.execute(SELECT_LABEL, (name,)).fetchall()

    assert created == [("databricks_auth", f"id={json.loads(me)['id']},type=USER")]
    assert dropped == []


def test_role_without_an_identity_type_is_not_created(connect, local):
    with (
        connect(user=local.facts["owner"]) as session,
        pytest.raises(psycopg.errors.InvalidParameterValue, match="identity type"),
    ):
        session.execute("SELECT databricks_create_role('typeless@x.test', NULL)")


def test_long_name_that_postgres_shortens_gets_a_label(connect, local):
    with connect(user=local.facts["owner"]) as session:
        session.execute("SELECT databricks_create_role(%s, 'GROUP')", ("g" * 70,))
        labels = session.execute(SELECT_LABEL, ("g" * 63,)).fetchall()
        session.execute(f'DROP ROLE "{"g" * 63}"')

    assert len(labels) == 1


def test_role_created_through_the_api_gives_its_creator_no_membership(
    create_role, connect, local
):
    """``databricks_create_role`` does; the service's API was seen not to."""
    create_role(postgres_role=local.facts["developer"], identity_type="USER")
    with connect(user=local.facts["owner"]) as session:
        row = session.execute(
            "SELECT count(*) FROM pg_auth_members WHERE roleid = %s::regrole",
            (f'"{local.facts["developer"]}"',),
        ).fetchone()

    assert row == (0,)


def test_native_role_logs_in_with_the_password_generated_by_the_api(
    api, create_role, connect
):
    role = create_role(postgres_role="clerk", attributes={"createdb": True})
    password = api.request("POST", f"{role['name']}/password", {})["password"]

    with connect(user="clerk", password=password) as session:
        row = session.execute("SELECT current_user").fetchone()

    assert row == ("clerk",)
    assert role["status"]["attributes"]["createdb"] is True


def test_role_without_login_has_no_password(api, create_role):
    role = create_role(postgres_role="holder", auth_method="NO_LOGIN")

    assert role["status"]["auth_method"] == "NO_LOGIN"
    with pytest.raises(ApiError, match="has no password"):
        api.request("POST", f"{role['name']}/password", {})


def test_role_created_by_sql_has_an_id_derived_from_its_name(
    api, branch, local, connect
):
    with connect(user=local.facts["owner"]) as session:
        session.execute("SELECT databricks_create_role('Ann@Example.com', 'USER')")
        try:
            status = api.request("GET", f"{branch}/roles/ann-example-com")["status"]
        finally:
            session.execute('DROP ROLE "Ann@Example.com"')

    assert status["postgres_role"] == "Ann@Example.com"
    assert status["identity_type"] == "USER"


def test_attributes_and_membership_of_a_role_can_be_changed(api, create_role):
    name = create_role(postgres_role="promoted")["name"]
    spec = {
        "attributes": {"createrole": True},
        "membership_roles": ["DATABRICKS_SUPERUSER"],
    }

    mask = "spec.attributes,spec.membership_roles"
    changed = api.run_operation("PATCH", f"{name}?update_mask={mask}", {"spec": spec})

    assert changed["status"]["attributes"]["createrole"] is True
    assert changed["status"]["membership_roles"] == ["DATABRICKS_SUPERUSER"]


@pytest.mark.parametrize(
    ("query", "spec", "status", "message"),
    [
        ("", {}, 400, "'role.spec.postgres_role' is required"),
        ("?role_id=1", {"postgres_role": "x"}, 400, "role_id must match"),
        ("", {"postgres_role": "native_user"}, 400, "role with that name already"),
        ("", {"postgres_role": "x", "identity_type": "DOG"}, 400, "identity_type"),
        (
            "",
            {"postgres_role": "x", "auth_method": "LAKEBASE_OAUTH_V1"},
            400,
            "is not valid for",
        ),
    ],
)
def test_invalid_role_is_rejected(api, branch, query, spec, status, message):
    """The service answers 400 even if the name is already taken."""
    with pytest.raises(ApiError, match=message) as caught:
        api.run_operation("POST", f"{branch}/roles{query}", {"spec": spec})

    assert caught.value.status == status


def test_role_that_owns_a_database_is_deleted_only_with_a_new_owner(
    api, branch, create_role
):
    """Otherwise the operation fails with PostgreSQL's error text."""
    owner = create_role(postgres_role="owner", auth_method="NO_LOGIN")
    new_owner = create_role(postgres_role="new_owner", auth_method="NO_LOGIN")
    spec = {"postgres_database": "owned", "role": owner["name"]}
    database = api.run_operation("POST", f"{branch}/databases", {"spec": spec})

    with pytest.raises(ApiError, match="cannot be dropped") as caught:
        api.run_operation("DELETE", owner["name"])
    api.run_operation(
        "DELETE", f"{owner['name']}?reassign_owned_to={new_owner['name']}"
    )
    reassigned = api.request("GET", database["name"])
    api.run_operation("DELETE", database["name"])

    assert caught.value.code == "BAD_REQUEST"
    assert reassigned["status"]["role"] == new_owner["name"]
    with pytest.raises(ApiError, match="role id not found"):
        api.request("GET", owner["name"])


def test_database_is_created_connected_to_renamed_and_dropped(
    api, branch, create_role, connect, local
):
    """The names contain characters that are special in SQL and in psycopg."""
    role = """O'Brien "50%" \\ {}"""
    name = f"Shop of {role}"
    owner = create_role(
        "?role_id=shopkeeper", postgres_role=role, auth_method="NO_LOGIN"
    )["name"]
    spec = {"postgres_database": name, "role": owner}

    database = api.run_operation(
        "POST", f"{branch}/databases?database_id=shop", {"spec": spec}
    )
    listed = api.request("GET", f"{branch}/databases")["databases"]
    connect(dbname=name, user=local.facts["owner"]).close()
    renamed = api.run_operation(
        "PATCH",
        f"{database['name']}?update_mask=spec.postgres_database",
        {"spec": {"postgres_database": "shop"}},
    )
    api.run_operation("DELETE", database["name"])

    assert database["status"]["role"] == owner
    assert database["status"]["postgres_database"] == name
    assert {"shop", "databricks-postgres"} <= {db["database_id"] for db in listed}
    assert renamed["status"]["postgres_database"] == "shop"
    with pytest.raises(ApiError, match="database id not found"):
        api.request("GET", database["name"])


@pytest.mark.parametrize(
    ("query", "spec", "message"),
    [
        ("", {}, "'database.spec.postgres_database' is required"),
        ("", {"postgres_database": "x"}, "'database.spec.role' is required"),
        ("", {"postgres_database": "x", "role": "a/none"}, "role id not found"),
        (
            "?database_id=Invalid_DB_ID",
            {"postgres_database": "x", "role": "a/native-user"},
            "Field database_id must match pattern .*, got 'Invalid_DB_ID'",
        ),
        (
            "",
            {"postgres_database": "databricks_postgres", "role": "a/native-user"},
            "database with that name already exists",
        ),
    ],
)
def test_invalid_database_is_rejected(api, branch, query, spec, message):
    with pytest.raises(ApiError, match=message):
        api.run_operation("POST", f"{branch}/databases{query}", {"spec": spec})
