"""The command lakebase_check: its steps, its output, and --wait."""

import io
import json
import time
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from django_lakebase.management import wait
from tests.helpers.plain_psycopg import open_session

STEPS = [
    "settings",
    "sdk-login",
    "identity",
    "endpoint",
    "credential",
    "tls",
    "login",
    "role",
    "database",
    "rotation",
]


@pytest.fixture
def check(local, django_db_blocker):
    """Yield a function that runs the command and returns its status and output."""

    def run(*arguments):
        out = io.StringIO()
        status: str | int | None = 0
        try:
            call_command("lakebase_check", *arguments, stdout=out)
        except SystemExit as exc:
            status = exc.code
        return status, out.getvalue()

    with django_db_blocker.unblock():
        yield run


@pytest.fixture
def settings_dict(local):
    """Yield the settings of the default alias, and restore them after the test."""
    own = connections["default"].settings_dict
    before = {**own, "OPTIONS": {**own["OPTIONS"]}}
    # The real database, and not a test database of an earlier test.
    own["NAME"] = local.facts["database"]
    yield own
    own.clear()
    own.update(before)


def steps_of(text):
    """Return the steps of a JSON report by id."""
    report = json.loads(text)
    assert report["version"] == 1
    [alias] = report["aliases"]
    assert alias["alias"] == "default"
    return {step["id"]: step for step in alias["steps"]}


def test_successful_check_prints_a_line_per_step_and_no_hint(check, local):
    status, out = check()

    lines = out.splitlines()
    assert status == 0
    assert lines[0] == "default"
    assert [line.split()[:2] for line in lines[1:]] == [["ok", step] for step in STEPS]
    assert "host verified" in out
    assert local.facts["service_principal"] in out


def test_json_report_has_stable_ids_and_fields(check):
    status, out = check("--format", "json")
    steps = steps_of(out)

    assert status == 0
    assert list(steps) == STEPS
    fields = {"id", "status", "detail", "hint", "seconds", "findings"}
    assert set(steps["tls"]) == fields
    assert {step["status"] for step in steps.values()} == {"ok"}


def test_output_has_no_colour_without_a_terminal(check):
    _, out = check()

    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("fault", "settings", "failing", "hint"),
    [
        ("api-down", {}, "sdk-login", "DATABRICKS_HOST"),
        ("secret-revoked", {}, "sdk-login", "DATABRICKS_CLIENT_SECRET"),
        ("no-workspace-access", {}, "identity", "Workspace access|workspace admin"),
        ("empty-credential", {}, "credential", "support"),
        ("role-missing", {}, "login", "databricks_create_role"),
        ("reject-logins", {"message": "jwt"}, "login", "databricks_create_role"),
        ("reject-logins", {"message": "label"}, "login", "PGUSER"),
        ("reject-logins", {"message": "disabled"}, "login", "Enable"),
    ],
)
def test_fault_fails_its_step_and_skips_the_later_ones(
    check, local, fault, settings, failing, hint
):
    with local.fault(fault, **settings):
        status, out = check("--format", "json")
    steps = steps_of(out)

    at = STEPS.index(failing)
    assert status == 1
    assert [steps[step]["status"] for step in STEPS] == (
        ["ok"] * at + ["fail"] + ["skipped"] * (len(STEPS) - at - 1)
    )
    assert any(word in steps[failing]["hint"] for word in hint.split("|"))


@pytest.mark.parametrize(
    ("own", "failing", "said"),
    [
        ({"NAME": "nowhere"}, "login", "PGDATABASE"),
        ({"PORT": "0"}, "settings", "PORT"),
        ({"OPTIONS": {"sslmode": "prefer"}}, "settings", "sslmode"),
        ({"OPTIONS": {"sslrootcert": "/none.pem"}}, "tls", "/none.pem"),
        (
            {"OPTIONS": {"sslrootcert": "system", "sslmode": "verify-full"}},
            "tls",
            "certificate verify failed",
        ),
        ({"OPTIONS": {"assume_role": "nobody-has-it"}}, "role", "nobody-has-it"),
        (
            {"OPTIONS": {"assume_role": "nobody-has-it"}},
            "role",
            'OPTIONS["assume_role"]',
        ),
        ({"OPTIONS": {"pool": {"max_sise": 3}}}, "settings", "max_sise"),
        ({"OPTIONS": {"pool": True}, "CONN_MAX_AGE": 5}, "settings", "CONN_MAX_AGE"),
    ],
    ids=[
        "database",
        "port",
        "sslmode",
        "no-ca-file",
        "other-ca",
        "assume-role",
        "assume-role-hint",
        "pool-key",
        "pool-and-age",
    ],
)
def test_invalid_setting_fails_its_step(check, settings_dict, own, failing, said):
    settings_dict.update(own)

    status, out = check("--format", "json")
    step = steps_of(out)[failing]

    assert (status, step["status"]) == (1, "fail")
    assert said in step["detail"] + step["hint"]


def test_hint_is_printed_below_its_step(check, local):
    with local.fault("role-missing"):
        _, out = check()
    lines = out.splitlines()

    [at] = [number for number, line in enumerate(lines) if line.startswith("  fail")]
    assert lines[at + 1].startswith(" " * 11)
    assert "databricks_create_role" in lines[at + 1]


@pytest.mark.parametrize(
    ("seconds", "said"), [(-7200, "ahead of the service's"), (7200, "behind the serv")]
)
def test_wrong_clock_is_a_warning(check, local, seconds, said):
    with local.fault("clock-skew", seconds=seconds):
        status, out = check("--format", "json")

    credential = steps_of(out)["credential"]
    assert (status, credential["status"]) == (0, "warn")
    assert said in credential["detail"]


def test_search_path_without_an_existing_schema_is_a_warning(check, settings_dict):
    """A grant would not help."""
    settings_dict["OPTIONS"] = {"options": "-c search_path=nowhere"}

    status, out = check("--format", "json")
    database = steps_of(out)["database"]

    assert (status, database["status"]) == (0, "warn")
    assert "search_path" in database["hint"]


def test_service_file_skips_the_tls_step(
    check, settings_dict, local, tmp_path, monkeypatch
):
    """Without a host in the settings there is no handshake."""
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(name)
    facts = local.facts
    file = tmp_path / "services"
    file.write_text(
        f"[own]\nhost={facts['host']}\nport={facts['port']}\n"
        f"dbname={facts['database']}\nuser={facts['native_user']}\n"
        f"password={facts['native_password']}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    options = {"service": "own", "hostaddr": "127.0.0.1", "sslmode": "require"}
    settings_dict.update(HOST="", PORT="", USER="", NAME="", OPTIONS=options)

    status, out = check("--format", "json")
    steps = steps_of(out)

    assert status == 0
    assert (steps["tls"]["status"], steps["login"]["status"]) == ("skipped", "ok")
    assert "service file" in steps["tls"]["detail"]


def test_user_that_is_not_the_identity_is_a_warning(check, settings_dict, local):
    """It explains the rejection in a later step."""
    settings_dict["USER"] = local.facts["owner"]

    status, out = check("--format", "json")
    steps = steps_of(out)

    assert (steps["identity"]["status"], steps["login"]["status"]) == ("warn", "fail")
    assert status == 1


def test_member_of_a_group_may_log_in_as_the_role_of_the_group(
    check, settings_dict, local
):
    group, owner = local.facts["group"], local.facts["owner"]
    settings_dict["USER"] = group
    with open_session(local, user=owner) as session:
        session.execute("SELECT databricks_create_role(%s, 'GROUP')", [group])
        session.execute(f'GRANT USAGE, CREATE ON SCHEMA public TO "{group}"')
        try:
            status, out = check("--format", "json")
        finally:
            session.execute(f'DROP OWNED BY "{group}"; DROP ROLE "{group}"')
    steps = steps_of(out)

    assert {step["status"] for step in steps.values()} == {"ok"}
    assert f'a member of the group "{group}"' in steps["identity"]["detail"]
    assert f'current_user is "{group}"' in steps["role"]["detail"]
    assert status == 0


def test_native_login_skips_the_steps_about_the_workspace(check, settings_dict, local):
    settings_dict.update(
        HOST=local.facts["host"],
        USER=local.facts["native_user"],
        PASSWORD=local.facts["native_password"],
        OPTIONS={"hostaddr": local.facts["hostaddr"]},
    )

    status, out = check("--format", "json")
    skipped = [s["id"] for s in steps_of(out).values() if s["status"] == "skipped"]

    assert status == 0
    assert skipped == ["sdk-login", "identity", "endpoint", "credential", "rotation"]


def test_missing_create_grant_is_a_warning(check, settings_dict, local):
    """An application that never migrates works without it."""
    with local.fault("grants-revoked", privilege="schema"):
        status, out = check("--format", "json")
    database = steps_of(out)["database"]

    assert (status, database["status"]) == (0, "warn")
    assert 'GRANT USAGE, CREATE ON SCHEMA "public"' in database["hint"]


def test_wait_repeats_temporary_failures(check, local, monkeypatch):
    """A container may start before its network or its database."""
    clock = SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda _: local.clear_faults()
    )
    monkeypatch.setattr(wait, "time", clock)
    local.set_fault("api-5xx")

    status, out = check("--wait", "30")

    assert status == 0
    assert "retrying for another" in out


def test_wait_does_not_repeat_permanent_failures(check, local):
    with local.fault("secret-revoked"):
        status, out = check("--wait", "600")

    assert status == 1
    assert "retrying for another" not in out


@pytest.mark.parametrize("seconds", ["-1", "inf", "soon"])
def test_wait_accepts_only_seconds(check, seconds):
    with pytest.raises(CommandError, match=r"--wait: .* is not a number of seconds"):
        check(f"--wait={seconds}")


def test_alias_given_twice_is_checked_once(check):
    _, out = check("--format", "json", "--database", "default", "--database", "default")

    assert len(json.loads(out)["aliases"]) == 1


def test_unknown_alias_is_rejected(check):
    """The error lists the known aliases."""
    with pytest.raises(
        CommandError, match='no alias "other"; its aliases are: default'
    ):
        check("--database", "other")


def test_alias_of_another_engine_is_rejected(check, monkeypatch):
    for module in ("aliases", "commands.lakebase_check"):
        name = f"django_lakebase.management.{module}.LakebaseMixin"
        monkeypatch.setattr(name, str)

    with pytest.raises(CommandError, match="ENGINE"):
        check("--database", "default")
    with pytest.raises(CommandError, match="No alias of DATABASES uses this engine"):
        check()


def test_check_works_before_the_first_migration(check):
    status, _ = check("--database", "default")

    assert status == 0
