"""The pytest plugin, in projects without a conftest."""

import os
import subprocess
import sys

HEAVY = ("aiohttp", "cryptography", "django", "jwt", "psycopg", "trustme")
# As in an environment without the extra ``local``, and without Django.
WITHOUT_EXTRA = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY!r}))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


IMPORTED_EARLY = """
import sys
import django_lakebase
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""
EMPTY_TEST = "def test_that_needs_no_database(): pass"
MODULE = ("-m", "pytest")


def run(folder, text, *start, autoload=False):
    """Run pytest with *text* as its only test file; return the finished process."""
    (folder / "test_it.py").write_text(text)
    options = ["-p", "no:django", "-p", "no:cacheprovider", "--rootdir=."]
    env = dict(os.environ)
    if not autoload:
        env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        options += ["-p", "lakebase_local"]
    return subprocess.run(
        [sys.executable, *start, *options],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_plugin_starts_nothing_until_the_fixture_is_requested(tmp_path):
    """Its module is loaded, and nothing that it would need."""
    text = """
import sys

def test_that_needs_no_database():
    assert "django_lakebase.local.pytest_plugin" in sys.modules
    assert "django_lakebase.local.client" not in sys.modules
"""
    ended = run(tmp_path, text, *MODULE)

    assert ended.returncode == 0, ended.stdout


def test_plugin_loads_without_the_extra_local_and_without_django(tmp_path):
    """Pytest starts in an environment that has neither."""
    ended = run(tmp_path, EMPTY_TEST, "-c", WITHOUT_EXTRA)

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_plugin_warns_of_nothing_if_the_package_is_imported_before_pytest(tmp_path):
    """Pytest cannot rewrite the assertions of a package that is imported already."""
    ended = run(
        tmp_path, EMPTY_TEST, "-c", IMPORTED_EARLY, "-W", "error", autoload=True
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_fixture_sets_the_environment_without_a_conftest(tmp_path, local, monkeypatch):
    """And uses a local Lakebase that runs already."""
    for name, value in local.env.items():
        monkeypatch.setenv(name, value)
    text = """
import os

def test_that_needs_a_database(lakebase):
    assert lakebase.facts["host"] == os.environ["PGHOST"]
"""
    ended = run(tmp_path, text, *MODULE)

    assert ended.returncode == 0, ended.stdout


def test_plugin_is_registered_by_entry_point(pytestconfig):
    """So that no project has to name it."""
    assert pytestconfig.pluginmanager.hasplugin("lakebase_local")
