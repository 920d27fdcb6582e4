"""The documentation covers all options, variables, checks, failures and faults."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandParser
from django.core.management.commands import migrate

import django_lakebase
from django_lakebase import signals
from django_lakebase.checks import CHECKS_PAGE
from django_lakebase.config import libpq
from django_lakebase.config.resolve import OWN_OPTIONS
from django_lakebase.diagnosis.deploy import DEPLOY_STEPS
from django_lakebase.failures.catalog import FAILURES
from django_lakebase.local.__main__ import main
from django_lakebase.local.faults import FAULTS
from django_lakebase.management.commands import (
    lakebase_check,
    lakebase_migrate,
    lakebase_role,
)
from django_lakebase.stats import Stats

TOP = Path(django_lakebase.__file__).parent.parent
PAGES = [*TOP.glob("docs/**/*.md"), TOP / "README.md"]
PAGES = [page for page in PAGES if "_made" not in page.parts]
VARIABLES = set(
    re.findall(
        r'"((?:DATABRICKS|PG|LAKEBASE|ENDPOINT)_?[A-Z_]+)"',
        "".join(
            path.read_text() for path in (TOP / "django_lakebase/config").glob("*.py")
        ),
    )
)


def page(name):
    """Return the text of a page of the reference."""
    return (TOP / "docs" / "reference" / f"{name}.md").read_text()


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_variable_is_documented(name):
    """In the text, or in the table of libpq's variables, which is generated."""
    in_table = name in {variable.name for variable in libpq.VARIABLES}
    assert f"`{name}`" in page("settings") or in_table or name.endswith("_")


@pytest.mark.parametrize("name", OWN_OPTIONS)
def test_option_of_the_engine_is_documented(name):
    assert f"\n`{name}`\n: " in page("settings")


def options_of(command):
    """Return the options that *command* declares."""
    parser = CommandParser(add_help=False)
    command().add_arguments(parser)
    return set(re.findall(r"(?<!\w)--[\w-]+", parser.format_help()))


def test_options_and_steps_of_lakebase_check_are_documented():
    options = options_of(lakebase_check.Command)
    source = (TOP / "django_lakebase/diagnosis/steps.py").read_text()
    steps = re.findall(r'\("([a-z-]+)", self\._', source)

    assert len(steps) == 10
    steps += DEPLOY_STEPS
    assert [o for o in options if f"`{o}" not in page("check")] == []
    assert [s for s in steps if f"| `{s}` |" not in page("check")] == []


def test_actions_options_and_changes_of_lakebase_role_are_documented(capsys):
    text = page("roles")
    options = set()
    for action in lakebase_role.HELP:
        with pytest.raises(SystemExit, match="0"):
            call_command("lakebase_role", action, "--help")
        options |= set(re.findall(r"(?<!\w)--[\w-]+", capsys.readouterr().out))
    source = (TOP / "django_lakebase/roles/plan.py").read_text()
    changes = set(re.findall(r'"(role|[a-z]+-[a-z]+)"', source))

    assert {"--owner-role", "--via"} < options
    assert {"role", "schema-reset", "default-privileges"} < changes
    assert [a for a in lakebase_role.HELP if f"\n`{a}`\n: " not in text] == []
    assert {o for o in options - {"--help"} if f"`{o}" not in text} == set()
    assert {c for c in changes if f"\n| `{c}` |" not in text} == set()


def test_own_options_of_lakebase_migrate_are_documented():
    options = options_of(lakebase_migrate.Command) - options_of(migrate.Command)

    assert options == {"--wait", "--lock-timeout"}
    assert [o for o in options if f"\n`{o} " not in page("migrate")] == []


def test_system_checks_are_the_sections_of_their_page():
    source = (TOP / "django_lakebase/checks.py").read_text()
    sections = re.findall(r"\n### (lakebase\.\w+)\n", page("checks"))

    assert sections == sorted(set(re.findall(r'"(lakebase\.[EW]\d+)"', source)))


def test_each_system_check_has_an_anchor():
    checks = set(re.findall(r"\n### lakebase\.(\w+)\n", page("checks")))

    assert checks
    missing = [
        c for c in checks if f"(lakebase-{c.lower()})=\n### " not in page("checks")
    ]
    assert missing == []


def test_hints_of_system_checks_lead_to_an_existing_page():
    assert (TOP / CHECKS_PAGE).exists()


def test_signals_stats_metrics_and_spans_are_documented():
    text = page("observability")
    source = (TOP / "django_lakebase/telemetry.py").read_text()
    named = set(re.findall(r'"((?:lakebase|db)\.[a-z_.]+)"', source))
    named |= {name for name in vars(signals) if name.islower() and name[0] not in "@_"}
    named |= {field.name for field in dataclasses.fields(Stats)}

    assert len(named) > 20
    assert {n for n in named if f"`{n}`" not in text} == set()


def test_options_of_the_emulator_are_documented(capsys):
    options = set()
    for command in ("run", "start", "fault"):
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        options |= set(re.findall(r"(?<!\w)--[\w-]+", capsys.readouterr().out))

    assert {"--help", "--token-ttl"} < options
    options -= {"--help"}
    assert {o for o in options if o not in page("local")} == set()


def test_tables_of_failures_and_faults_are_generated():
    source = (TOP / "docs/conf.py").read_text()

    assert "FAILURES" in source
    assert "FAULTS" in source
    assert len(FAILURES) > 40
    assert len(FAULTS) > 9
    for name in ("settings", "workspace", "server"):
        assert f"_made/{name}.md" in page("errors")
    assert "_made/faults.md" in page("local")


@pytest.mark.parametrize("extra", ["packages-newest", "packages-lts"])
def test_tested_package_has_a_row_with_its_version(extra):
    """And with the version of Django below it."""
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    needs = project["optional-dependencies"][extra]
    pins = dict(re.findall(r"^([\w-]+)\S*==(\S+)$", "\n".join(needs), re.MULTILINE))
    django = pins.pop("django")
    rows = (TOP / "docs/compatibility.md").read_text().splitlines()

    missing = [
        name
        for name, version in pins.items()
        if not any(name in row and f"| {version} | {django} |" in row for row in rows)
    ]

    assert pins
    assert missing == []


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_python_in_the_documentation_compiles(file):
    for code in re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL):
        compile(code, str(file), "exec")


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_relative_link_has_a_target(file):
    """Code hosts follow the links, too."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text()):
        if "://" not in target:
            assert (file.parent / target).exists(), target


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.id)
def test_failure_names_no_page_of_the_documentation(failure):
    """Installed packages do not include the pages."""
    assert ".md" not in failure.summary + failure.hint


def test_readme_has_at_most_120_lines_and_starts_with_the_commands():
    lines = (TOP / "README.md").read_text().splitlines()

    assert len(lines) <= 120
    assert "pip install django-lakebase" in "\n".join(lines[:10])
    assert "```console\n$ make demo\n```" in "\n".join(lines)
    assert "```console\n$ make test\n```" in "\n".join(lines)
