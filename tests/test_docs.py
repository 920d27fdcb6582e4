"""The documentation tells the truth about what there is."""

import argparse
import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

import django_lakebase
from django_lakebase import libpq, signals
from django_lakebase.config import OWN_OPTIONS
from django_lakebase.failures import FAILURES
from django_lakebase.figures import Figures
from django_lakebase.local.__main__ import build_parser
from django_lakebase.local.faults.registry import FAULTS
from django_lakebase.management.commands.lakebase_check import Command

TOP = Path(django_lakebase.__file__).parent.parent
PAGES = [*TOP.glob("docs/**/*.md"), TOP / "README.md"]
PAGES = [page for page in PAGES if "_made" not in page.parts]
VARIABLES = set(
    re.findall(
        r'"((?:DATABRICKS|PG|LAKEBASE|ENDPOINT)_?[A-Z_]+)"',
        (TOP / "django_lakebase/config.py").read_text(),
    )
)


def page(name):
    """Return the text of a page of the reference."""
    return (TOP / "docs" / "reference" / f"{name}.md").read_text()


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_every_variable_is_in_the_settings_page(name):
    """Or in the table of libpq's variables, which is made from the code."""
    in_table = name in {variable.name for variable in libpq.VARIABLES}
    assert f"`{name}`" in page("settings") or in_table or name.endswith("_")


@pytest.mark.parametrize("name", OWN_OPTIONS)
def test_every_option_of_the_engine_is_in_the_settings_page(name):
    """With an entry of its own."""
    assert f"\n`{name}`\n: " in page("settings")


def test_every_option_of_the_check_is_in_its_page():
    """And every step."""
    parser = argparse.ArgumentParser(add_help=False)
    Command().add_arguments(parser)
    options = [action.option_strings[0] for action in parser._actions]
    source = (TOP / "django_lakebase/diagnosis.py").read_text()
    steps = re.findall(r'\("([a-z-]+)", self\._', source)

    assert len(steps) == 10
    assert [o for o in options if f"`{o}" not in page("check")] == []
    assert [s for s in steps if f"| `{s}` |" not in page("check")] == []


def test_every_system_check_has_a_section():
    """And no section speaks of a check that is not there."""
    source = (TOP / "django_lakebase/checks.py").read_text()
    sections = re.findall(r"\n### (lakebase\.\w+)\n", page("checks"))

    assert sections == sorted(set(re.findall(r'"(lakebase\.[EW]\d+)"', source)))


def test_what_can_be_observed_is_in_its_page():
    """Each signal, figure, metric and span."""
    text = (TOP / "docs/howto/observe.md").read_text()
    source = (TOP / "django_lakebase/telemetry.py").read_text()
    named = set(re.findall(r'"((?:lakebase|db)\.[a-z_.]+)"', source))
    named |= {name for name in vars(signals) if name.islower() and name[0] not in "@_"}
    named |= {field.name for field in dataclasses.fields(Figures)}
    shortened = {"lakebase.pool.connections.idle", "lakebase.pool.connections.waiting"}

    assert len(named) > 20
    assert {n for n in named - shortened if f"`{n}`" not in text} == set()


def test_every_option_of_the_local_lakebase_is_in_its_page():
    """Those of run and start."""
    commands = next(
        action for action in build_parser()._actions if isinstance(action.choices, dict)
    )
    options = {
        option
        for parser in commands.choices.values()
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and option != "--help"
    }

    assert {o for o in options if o not in page("local")} == set()


def test_the_tables_are_made_from_the_code():
    """Errors and faults cannot be forgotten in the documentation."""
    source = (TOP / "docs/conf.py").read_text()

    assert "FAILURES" in source
    assert "FAULTS" in source
    assert len(FAILURES) > 40
    assert len(FAULTS) > 9
    for name in ("settings", "workspace", "server"):
        assert f"_made/{name}.md" in page("errors")
    assert "_made/faults.md" in page("local")


@pytest.mark.parametrize("extra", ["packages-newest", "packages-lts"])
def test_each_package_that_is_run_has_its_row(extra):
    """With the version that is installed for its journey, and the Django below it."""
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
    """Whoever copies it gets no SyntaxError."""
    for code in re.findall(r"```python\n(.*?)```", file.read_text(), re.DOTALL):
        compile(code, str(file), "exec")


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_links_between_pages_lead_somewhere(file):
    """Also for those who read on a code host."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", file.read_text()):
        if "://" not in target:
            assert (file.parent / target).exists(), target


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.id)
def test_a_mend_is_whole_without_the_documentation(failure):
    """An installed package brings no pages that an error could send somebody to."""
    assert ".md" not in failure.means + failure.mend


def test_the_readme_fits():
    """The first screen is enough to try it, and the whole is short."""
    lines = (TOP / "README.md").read_text().splitlines()

    assert len(lines) <= 120
    assert "pip install django-lakebase" in "\n".join(lines[:10])
    assert "```console\n$ make demo\n```" in "\n".join(lines)
    assert "```console\n$ make test\n```" in "\n".join(lines)
