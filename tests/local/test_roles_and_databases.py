"""Roles and databases: over the API and by SQL, two views of the same."""

import pytest

from tests.local.conftest import Refused


@pytest.fixture
def branch(local):
    """Give the name of the default branch."""
    return local.facts["branch"]


@pytest.fixture
def role(api, branch):
    """Give a function that makes a role, which goes away after the test."""
    made = []

    def make(query="", **spec):
        role = api.do("POST", f"{branch}/roles{query}", {"spec": spec})
        made.append(role["name"])
        return role

    yield make
    for name in made:
        if not api.is_gone(name):
            api.do("DELETE", name)


def test_the_roles_that_are_there(api, local, branch):
    """The identities, the native one, and none of the service's own."""
    found = {
        role["status"]["postgres_role"]: role["status"]
        for role in api.ask("GET", f"{branch}/roles")["roles"]
    }

    facts = local.facts
    owner, principal = found[facts["owner"]], found[facts["service_principal"]]
    native = found[facts["native_user"]]
    assert owner["identity_type"] == "USER"
    assert owner["membership_roles"] == ["DATABRICKS_SUPERUSER"]
    assert principal["identity_type"] == "SERVICE_PRINCIPAL"
    assert principal["auth_method"] == "LAKEBASE_OAUTH_V1"
    assert native["identity_type"] == "IDENTITY_TYPE_UNSPECIFIED"
    assert native["auth_method"] == "PG_PASSWORD_SCRAM_SHA_256"
    assert "databricks_superuser" not in found


def test_a_role_for_an_identity_takes_tokens(local, role, dial):
    """One request makes what databricks_create_role makes."""
    name = "0f3d1a5e-5a3e-4f2c-9d43-0c8cf1f0a111"
    made = role(
        "?role_id=sp-one", postgres_role=name, identity_type="SERVICE_PRINCIPAL"
    )

    with dial(user=name) as session:
        row = session.execute("SELECT current_user").fetchone()

    assert row == (name,)
    assert made["name"].endswith("/roles/sp-one")
    assert made["status"]["attributes"]["createdb"] is False


def test_a_native_role_has_a_password(api, role, dial):
    """Which the service makes, and shows to who asks."""
    made = role(postgres_role="clerk", attributes={"createdb": True})
    password = api.ask("POST", f"{made['name']}/password", {})["password"]

    with dial(user="clerk", password=password) as session:
        row = session.execute("SELECT current_user").fetchone()

    assert row == ("clerk",)
    assert made["status"]["attributes"]["createdb"] is True


def test_a_role_that_cannot_log_in(api, role):
    """It owns things, for others."""
    made = role(postgres_role="holder", auth_method="NO_LOGIN")

    assert made["status"]["auth_method"] == "NO_LOGIN"
    with pytest.raises(Refused, match="has no password"):
        api.ask("POST", f"{made['name']}/password", {})


def test_what_sql_makes_the_api_shows(api, branch, local, dial):
    """Under an id that is made of its name."""
    with dial(user=local.facts["owner"]) as session:
        session.execute("SELECT databricks_create_role('Ann@Example.com', 'USER')")
        try:
            shown = api.ask("GET", f"{branch}/roles/ann-example-com")["status"]
        finally:
            session.execute('DROP ROLE "Ann@Example.com"')

    assert shown["postgres_role"] == "Ann@Example.com"
    assert shown["identity_type"] == "USER"


def test_a_role_is_changed(api, role):
    """Its rights and its membership, as the mask names them."""
    name = role(postgres_role="riser")["name"]
    spec = {
        "attributes": {"createrole": True},
        "membership_roles": ["DATABRICKS_SUPERUSER"],
    }

    mask = "spec.attributes,spec.membership_roles"
    changed = api.do("PATCH", f"{name}?update_mask={mask}", {"spec": spec})

    assert changed["status"]["attributes"]["createrole"] is True
    assert changed["status"]["membership_roles"] == ["DATABRICKS_SUPERUSER"]


@pytest.mark.parametrize(
    ("query", "spec", "status", "said"),
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
def test_roles_that_cannot_be_made(api, branch, query, spec, status, said):
    """The service answers 400, also for a name that is taken."""
    with pytest.raises(Refused, match=said) as caught:
        api.do("POST", f"{branch}/roles{query}", {"spec": spec})

    assert caught.value.status == status


def test_a_role_that_owns_something_has_an_heir(api, branch, role, local, dial):
    """Without one the operation fails, in PostgreSQL's words."""
    made = role(postgres_role="maker", auth_method="NO_LOGIN")
    heir = role(postgres_role="heir", auth_method="NO_LOGIN")
    spec = {"postgres_database": "estate", "role": made["name"]}
    database = api.do("POST", f"{branch}/databases", {"spec": spec})

    with pytest.raises(Refused, match="cannot be dropped") as caught:
        api.do("DELETE", made["name"])
    api.do("DELETE", f"{made['name']}?reassign_owned_to={heir['name']}")
    inherited = api.ask("GET", database["name"])
    api.do("DELETE", database["name"])

    assert caught.value.code == "BAD_REQUEST"
    assert inherited["status"]["role"] == heir["name"]
    with pytest.raises(Refused, match="role id not found"):
        api.ask("GET", made["name"])


def test_a_database_is_made_renamed_and_dropped(api, branch, role, dial, local):
    """And can be connected to in between."""
    owner = role(postgres_role="shopkeeper", auth_method="NO_LOGIN")["name"]
    spec = {"postgres_database": "Shop 1", "role": owner}

    made = api.do("POST", f"{branch}/databases?database_id=shop", {"spec": spec})
    listed = api.ask("GET", f"{branch}/databases")["databases"]
    dial(dbname="Shop 1", user=local.facts["owner"]).close()
    renamed = api.do(
        "PATCH",
        f"{made['name']}?update_mask=spec.postgres_database",
        {"spec": {"postgres_database": "shop"}},
    )
    api.do("DELETE", made["name"])

    assert made["status"]["role"] == owner
    assert {"shop", "databricks-postgres"} <= {d["database_id"] for d in listed}
    assert renamed["status"]["postgres_database"] == "shop"
    with pytest.raises(Refused, match="database id not found"):
        api.ask("GET", made["name"])


@pytest.mark.parametrize(
    ("query", "spec", "said"),
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
def test_databases_that_cannot_be_made(api, branch, query, spec, said):
    """Nothing is begun."""
    with pytest.raises(Refused, match=said):
        api.do("POST", f"{branch}/databases{query}", {"spec": spec})
