"""The pytest plugin in projects that have no conftest."""

import os
import subprocess
import sys

HEAVY = ("aiohttp", "cryptography", "django", "jwt", "psycopg", "trustme")
# Simulates an environment without the extra ``local`` and without Django.
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
EMPTY_TEST = "def test_without_database(): pass"
PYTEST = ("-m", "pytest")


def run_pytest(folder, text, *start, autoload=False):
    """
    Run pytest in *folder* with *text* as its only test file.

    *start* are the arguments of Python that start pytest. Return the finished process.
    """
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


def test_plugin_imports_no_client_until_the_fixture_is_requested(tmp_path):
    text = """
import sys

def test_without_database():
    assert "django_lakebase.local.pytest_plugin" in sys.modules
    assert "django_lakebase.local.client" not in sys.modules
"""
    result = run_pytest(tmp_path, text, *PYTEST)

    assert result.returncode == 0, result.stdout


def test_plugin_loads_without_the_extra_local_and_without_django(tmp_path):
    result = run_pytest(tmp_path, EMPTY_TEST, "-c", WITHOUT_EXTRA)

    assert result.returncode == 0, result.stdout + result.stderr


def test_plugin_raises_no_warning_if_the_package_is_imported_before_pytest(tmp_path):
    """Pytest warns where it can no longer rewrite the assertions of a plugin."""
    result = run_pytest(
        tmp_path, EMPTY_TEST, "-c", IMPORTED_EARLY, "-W", "error", autoload=True
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_fixture_uses_the_running_emulator_without_a_conftest(
    tmp_path, local, monkeypatch
):
    for name, value in local.env.items():
        monkeypatch.setenv(name, value)
    text = """
import os

def test_with_database(lakebase):
    assert lakebase.facts["host"] == os.environ["PGHOST"]
"""
    result = run_pytest(tmp_path, text, *PYTEST)

    assert result.returncode == 0, result.stdout


def test_plugin_is_registered_by_entry_point(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("lakebase_local")
