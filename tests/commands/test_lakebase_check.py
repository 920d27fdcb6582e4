"""The command that proves a connection, or says how to mend it."""

import io
import json
import time
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from django_lakebase.management.commands import lakebase_check
from tests.sessions import dialled

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
    """Give a function that runs the command and returns its status and output."""

    def run(*arguments):
        out = io.StringIO()
        status = 0
        try:
            call_command("lakebase_check", *arguments, stdout=out)
        except SystemExit as exc:
            status = exc.code
        return status, out.getvalue()

    with django_db_blocker.unblock():
        yield run


@pytest.fixture
def settings_dict(local):
    """Give the settings of the default alias, put back afterwards."""
    own = connections["default"].settings_dict
    before = {**own, "OPTIONS": {**own["OPTIONS"]}}
    # Not a test database that an earlier test has made.
    own["NAME"] = local.facts["database"]
    yield own
    own.clear()
    own.update(before)


def steps_of(text):
    """Return the steps of a report in JSON, by id."""
    report = json.loads(text)
    assert report["version"] == 1
    [alias] = report["aliases"]
    assert alias["alias"] == "default"
    return {step["id"]: step for step in alias["steps"]}


def test_all_is_well(check, local):
    """Every step is proven, on a line of its own, and nothing is to be mended."""
    status, out = check()

    lines = out.splitlines()
    assert status == 0
    assert lines[0] == "default"
    assert [line.split()[:2] for line in lines[1:]] == [["ok", step] for step in STEPS]
    assert "host verified" in out
    assert local.facts["service_principal"] in out


def test_the_json_is_stable(check):
    """Ids, words and fields are for programs to rely on."""
    status, out = check("--format", "json")
    steps = steps_of(out)

    assert status == 0
    assert list(steps) == STEPS
    assert set(steps["tls"]) == {"id", "status", "detail", "mend", "seconds"}
    assert {step["status"] for step in steps.values()} == {"ok"}


def test_there_is_no_colour_without_a_terminal(check):
    """Output goes into files and tickets."""
    _, out = check()

    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("fault", "settings", "failing", "mend"),
    [
        ("api-down", {}, "sdk-login", "DATABRICKS_HOST"),
        ("secret-revoked", {}, "sdk-login", "DATABRICKS_CLIENT_SECRET"),
        ("no-workspace-access", {}, "identity", "Workspace access|workspace admin"),
        ("empty-credential", {}, "credential", "support"),
        ("role-missing", {}, "login", "databricks_create_role"),
        ("refuse-logins", {"message": "jwt"}, "login", "databricks_create_role"),
        ("refuse-logins", {"message": "label"}, "login", "PGUSER"),
        ("refuse-logins", {"message": "disabled"}, "login", "Enable"),
    ],
)
def test_faults_end_at_their_step(check, local, fault, settings, failing, mend):
    """The first that fails says what to do; the later ones are skipped."""
    with local.fault(fault, **settings):
        status, out = check("--format", "json")
    steps = steps_of(out)

    at = STEPS.index(failing)
    assert status == 1
    assert [steps[step]["status"] for step in STEPS] == (
        ["ok"] * at + ["fail"] + ["skipped"] * (len(STEPS) - at - 1)
    )
    assert any(word in steps[failing]["mend"] for word in mend.split("|"))


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
            'Check OPTIONS["assume_role"]',
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
        "assume-role-mend",
        "pool-key",
        "pool-and-age",
    ],
)
def test_mistakes_end_at_their_step(check, settings_dict, own, failing, said):
    """What is wrong in the settings is found where it matters."""
    settings_dict.update(own)

    status, out = check("--format", "json")
    step = steps_of(out)[failing]

    assert (status, step["status"]) == (1, "fail")
    assert said in step["detail"] + step["mend"]


def test_mends_are_below_their_step(check, local):
    """A person reads the line, then what to do."""
    with local.fault("role-missing"):
        _, out = check()
    lines = out.splitlines()

    [at] = [number for number, line in enumerate(lines) if line.startswith("  fail")]
    assert lines[at + 1].startswith(" " * 11)
    assert "databricks_create_role" in lines[at + 1]


@pytest.mark.parametrize(
    ("seconds", "said"), [(-7200, "ahead of the service's"), (7200, "behind the serv")]
)
def test_a_wrong_clock_is_a_warning(check, local, seconds, said):
    """It works all the same, this way and that."""
    with local.fault("clock-skew", seconds=seconds):
        status, out = check("--format", "json")

    credential = steps_of(out)["credential"]
    assert (status, credential["status"]) == (0, "warn")
    assert said in credential["detail"]


def test_a_search_path_that_leads_nowhere_is_a_warning(check, settings_dict):
    """No grant would mend it."""
    settings_dict["OPTIONS"] = {"options": "-c search_path=nowhere"}

    status, out = check("--format", "json")
    database = steps_of(out)["database"]

    assert (status, database["status"]) == (0, "warn")
    assert "search_path" in database["mend"]


def test_a_service_file_says_where(check, settings_dict, local, tmp_path, monkeypatch):
    """So there is no host to shake hands with."""
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


def test_a_user_who_is_not_the_login_is_warned_of(check, settings_dict, local):
    """The later refusal has its reason before it."""
    settings_dict["USER"] = local.facts["owner"]

    status, out = check("--format", "json")
    steps = steps_of(out)

    assert (steps["identity"]["status"], steps["login"]["status"]) == ("warn", "fail")
    assert status == 1


def test_member_who_logs_in_to_the_role_of_a_group_is_ok(check, settings_dict, local):
    """The group is one that the workspace names for this identity."""
    group, owner = local.facts["group"], local.facts["owner"]
    settings_dict["USER"] = group
    with dialled(local, user=owner) as session:
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


def test_a_native_login_skips_what_is_about_tokens(check, settings_dict, local):
    """There is nothing to prove about a workspace that is not asked."""
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


def test_missing_grants_are_a_warning(check, settings_dict, local):
    """An app may live without migrating; the grant is named."""
    with local.fault("no-grants", what="schema"):
        status, out = check("--format", "json")
    database = steps_of(out)["database"]

    assert (status, database["status"]) == (0, "warn")
    assert 'GRANT USAGE, CREATE ON SCHEMA "public"' in database["mend"]


def test_wait_repeats_what_may_pass(check, local, monkeypatch):
    """A container starts before its network, or its database, does."""
    clock = SimpleNamespace(
        monotonic=time.monotonic, sleep=lambda _: local.clear_faults()
    )
    monkeypatch.setattr(lakebase_check, "time", clock)
    local.set_fault("api-5xx")

    status, out = check("--wait", "30")

    assert status == 0
    assert "trying again" in out


def test_wait_does_not_repeat_what_stays(check, local):
    """A wrong secret is not waited for."""
    with local.fault("secret-revoked"):
        status, out = check("--wait", "600")

    assert status == 1
    assert "trying again" not in out


@pytest.mark.parametrize("seconds", ["-1", "inf", "soon"])
def test_wait_takes_seconds(check, seconds):
    """Anything else is refused."""
    with pytest.raises(CommandError, match=r"--wait: .* is not a number of seconds"):
        check(f"--wait={seconds}")


def test_an_alias_that_is_named_twice_is_checked_once(check):
    """The report has one entry for each."""
    _, out = check("--format", "json", "--database", "default", "--database", "default")

    assert len(json.loads(out)["aliases"]) == 1


def test_an_unknown_alias_is_refused(check):
    """The known ones are named."""
    with pytest.raises(CommandError, match='no alias "other"; it has: default'):
        check("--database", "other")


def test_an_alias_of_another_engine_is_refused(check, monkeypatch):
    """And without any of ours there is nothing to check."""
    monkeypatch.setattr(
        "django_lakebase.management.commands.lakebase_check.LakebaseMixin", str
    )

    with pytest.raises(CommandError, match="ENGINE"):
        check("--database", "default")
    with pytest.raises(CommandError, match="No alias of DATABASES uses this engine"):
        check()


def test_it_works_before_the_first_migration(check):
    """It proves the connection, not the project."""
    status, _ = check("--database", "default")

    assert status == 0
