"""The house: which room may import which, and what must not be loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import django_lakebase

HOUSE = Path(django_lakebase.__file__).parent
# From the ground up: a room imports rooms before it, and none after it.
ROOMS = [
    "forks",
    "parsing",
    "kinds",
    "signals",
    "events",
    "failures",
    "errors",
    "ladder",
    "flight",
    "credentials",
    "config",
    "libpq",
    "reading",
    "login",
    "workspace",
    "connection",
    "opening",
    "creation",
    "client",
    "pool",
    "handshake",
    "session",
    "base",
    "warmup",
    "figures",
    "telemetry",
    "checks",
    "diagnosis",
    "apps",
]

# Above them all, on one floor: the same engine under other names.
ENGINES = ["postgresql", "postgis"]


def imported(file):
    """Return the rooms that *file* imports, in functions too."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names = [node.module] if node.module else [a.name for a in node.names]
            yield from (name for name in names if name != "__version__")


def is_for_types(file, room):
    """Return whether *file* imports *room* for annotations only."""
    tree = ast.parse(file.read_text())
    return any(
        isinstance(node, ast.If)
        and ast.unparse(node.test) == "TYPE_CHECKING"
        and f"from .{room} import" in ast.unparse(node)
        for node in tree.body
    )


def imported_of_ours(file):
    """Return what *file* imports of the package, by absolute paths."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_down(room):
    """A room knows nothing of the rooms above it."""
    file = HOUSE / f"{room}.py"

    above = [
        other
        for other in imported(file)
        if ROOMS.index(other) >= ROOMS.index(room) and not is_for_types(file, other)
    ]

    assert above == []


def test_every_room_has_its_place():
    """A new file is put into the order."""
    files = {file.stem for file in HOUSE.glob("*.py")} - {"__init__"}

    assert files == set(ROOMS)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_of_another_name_is_base_and_nothing_else(engine):
    """What works under the one name works under the others."""
    ours = {
        name
        for file in HOUSE.glob(f"{engine}/*.py")
        for name in (*imported_of_ours(file), *imported(file))
        if not name.startswith("django.")
    }

    assert ours == {"django_lakebase.base"}


def test_nothing_imports_an_engine_of_another_name():
    """PostGIS needs GDAL, which nobody else should have to install."""
    names = {f"django_lakebase.{engine}" for engine in ENGINES}
    for file in HOUSE.glob("**/*.py"):
        found = {*imported_of_ours(file), *imported(file)}
        assert not {n for n in found for o in names if n == o or n.startswith(o + ".")}
        assert not set(ENGINES) & {n.split(".")[0] for n in imported(file)}


def test_every_folder_has_its_place():
    """A new folder is one of the known ones."""
    folders = {file.parent.name for file in HOUSE.glob("*/__init__.py")}

    assert folders == {"local", "management", *ENGINES}


def test_the_local_lakebase_is_an_island():
    """The engine meets it through environment variables alone."""
    for file in HOUSE.glob("local/**/*.py"):
        text = file.read_text()
        assert "from .." not in text
        assert "import django\n" not in text
        assert "psycopg" not in text.replace("plain psycopg", "")
    for file in HOUSE.glob("*.py"):
        assert "local" not in set(imported(file))


def test_the_sdk_is_imported_inside_functions():
    """It takes a second: nobody pays for it at import."""
    for file in HOUSE.glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = (
                ast.unparse(node)
                if isinstance(node, (ast.Import, ast.ImportFrom))
                else ""
            )
            assert "databricks" not in names


def test_loading_the_engine_loads_no_sdk_and_no_pool():
    """What a request does not need is not in its process."""
    code = (
        "import sys, django_lakebase.base, django_lakebase.apps\n"
        "found = {'databricks.sdk', 'psycopg_pool', 'requests', 'aiohttp'}\n"
        "print(found & set(sys.modules))"
    )

    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert out.stdout.strip() == "set()"


def test_importing_the_package_loads_no_django():
    """Django imports it as an app before the settings are complete."""
    code = (
        "import sys, django_lakebase\n"
        "assert not hasattr(django_lakebase, 'no_such_name')\n"
        "print({'django', 'django_lakebase.warmup'} & set(sys.modules))"
    )

    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert out.stdout.strip() == "set()"


def test_the_package_is_typed():
    """Type checkers look at the annotations."""
    assert (HOUSE / "py.typed").exists()
