"""What importing the package loads; import-linter checks the layers (make lint)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import django_lakebase

PACKAGE = Path(django_lakebase.__file__).parent


def run_python(code: str) -> str:
    """Return what *code* prints in a new process."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("engine", "modules"), [("postgresql", {"base"}), ("postgis", {"base", "schema"})]
)
def test_other_engine_name_adds_nothing_of_its_own(engine, modules):
    tree = ast.parse((PACKAGE / engine / "base.py").read_text())
    imported = {
        node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }

    own = {name for name in imported if not name.startswith("django.")}
    assert own == {f"django_lakebase.{module}" for module in modules}


def test_engine_loads_neither_sdk_nor_pool():
    loaded = run_python(
        "import sys, django_lakebase.base, django_lakebase.apps\n"
        "found = {'databricks.sdk', 'psycopg_pool', 'requests', 'aiohttp'}\n"
        "print(found & set(sys.modules))"
    )

    assert loaded == "set()"


def test_engine_adds_only_its_own_modules_to_those_of_the_stock_backend():
    added = run_python(
        "import sys, django.db.backends.postgresql.base\n"
        "stock = set(sys.modules)\n"
        "import django_lakebase.base\n"
        "added = set(sys.modules) - stock\n"
        "print([m for m in added if m.partition('.')[0] != 'django_lakebase'])"
    )

    assert added == "[]"


def test_package_loads_no_django():
    """Django imports the package as an app before the settings are complete."""
    loaded = run_python(
        "import sys, django_lakebase\n"
        "assert not hasattr(django_lakebase, 'no_such_name')\n"
        "print({'django', 'django_lakebase.warmup'} & set(sys.modules))"
    )

    assert loaded == "set()"


def test_package_is_typed():
    assert (PACKAGE / "py.typed").exists()
