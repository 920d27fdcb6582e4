"""Each privilege, membership and ownership, taken away and given back."""

from dataclasses import dataclass

import pytest

from tests.integration.roles.conftest import GRANTS, OWNER_ROLE, Site

PENDING = "DELETE FROM django_migrations WHERE app = 'auth' AND name LIKE '0012%'"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Statements of the owner, and the step and the finding that report them."""

    statements: tuple[str, ...]
    step: str = "privileges"
    finding: str
    owner_role: str = ""


def damage(finding: str, *statements: str, **more: str) -> Damage:
    return Damage(finding=finding, statements=statements, **more)


DAMAGES = {
    "schema create": damage(
        "schema-privileges", "REVOKE CREATE ON SCHEMA public FROM {app}"
    ),
    "schema usage": damage(
        "schema-privileges",
        "REVOKE USAGE ON SCHEMA public FROM {app}",
        # PUBLIC got it from the owner of the schema.
        "SET ROLE pg_database_owner",
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
    ),
    **{
        f"table {privilege.lower()}": damage(
            "table-privileges", f"REVOKE {privilege} ON auth_user FROM {{app}}"
        )
        for privilege in ("SELECT", "INSERT", "UPDATE", "DELETE", "REFERENCES")
    },
    **{
        f"sequence {privilege.lower()}": damage(
            "sequence-privileges",
            f"REVOKE {privilege} ON SEQUENCE auth_user_id_seq FROM {{app}}",
        )
        for privilege in ("USAGE", "SELECT", "UPDATE")
    },
    "table defaults": damage(
        "default-privileges",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE INSERT ON TABLES FROM {app}",
    ),
    "sequence defaults": damage(
        "default-privileges",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM {app}",
    ),
    "owner role's table": damage(
        "ownership",
        "ALTER TABLE auth_user OWNER TO {owner}",
        step="ownership",
        owner_role=OWNER_ROLE,
    ),
    "owner role's schema": damage(
        "schema-reset",
        f"REVOKE CREATE ON SCHEMA public FROM {OWNER_ROLE}",
        owner_role=OWNER_ROLE,
    ),
}


@pytest.mark.parametrize("grants", GRANTS)
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_is_taken_away_is_found_and_given_back(
    site: Site, grants: str, damage: Damage
) -> None:
    owner_role = ["--owner-role", damage.owner_role] if damage.owner_role else []
    options = {"assume_role": damage.owner_role} if damage.owner_role else {}

    def create() -> None:
        command = ("lakebase_role", "create", "--service-principal", site.app)
        site.call(site.owner, *command, *owner_role)

    def failed() -> list[str]:
        steps = site.check(**options).values()
        return [step["id"] for step in steps if step["status"] == "fail"]

    site.execute(site.owner, GRANTS[grants])
    create()
    assert failed() == []

    site.execute(site.owner, *damage.statements)
    step = site.check(**options)[damage.step]
    assert {finding["id"] for finding in step["findings"]} == {damage.finding}
    site.correct(step)
    assert failed() == []

    site.execute(site.owner, *damage.statements)
    assert damage.step in failed()
    create()
    assert failed() == []


def test_pending_migration_of_a_table_of_another_owner(site: Site) -> None:
    """Without an owner role, the table can belong to one of the two."""
    command = ("lakebase_role", "create", "--service-principal", site.app)
    site.call(site.owner, *command)
    step = site.check()["ownership"]
    assert (step["status"], step["findings"][0]["id"]) == ("warn", "ownership")
    assert "No pending migration alters them" in step["hint"]
    site.execute(site.owner, PENDING)

    step = site.check()["ownership"]

    assert step["status"] == "fail"
    assert {finding["id"] for finding in step["findings"]} >= {"ownership"}
    assert "auth_user" in step["detail"]
    assert f'"{site.owner}"' in step["detail"]
    assert "auth.0012_alter_user_first_name_max_length." in step["hint"]
    site.correct(step)
    assert site.check()["ownership"]["status"] != "fail"
    site.call(site.app, "lakebase_migrate")
