"""The example project, as ``make demo`` runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def run(*command, **variables):
    """Run *command* from the top of the project to its end."""
    return subprocess.run(
        command,
        cwd=TOP,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_three_rotations_are_seen(tmp_path):
    """From nothing to a page that outlives its credentials; every request succeeds."""
    local = [sys.executable, "-m", "django_lakebase.local", "run", "--token-ttl", "3"]
    demo = [sys.executable, "-m", "example_project.demo", "--once"]

    found = run(*local, "--", *demo)

    assert found.returncode == 0, found.stderr
    assert "3 rotations: " in found.stdout
    assert "requests, all answered, took" in found.stdout


def test_a_request_that_fails_fails_the_demo(local):
    """It proves something only if it can fail."""
    demo = [sys.executable, "-m", "example_project.demo", "--once"]

    with local.fault("role-missing"):
        found = run(*demo, **local.env)

    assert found.returncode == 1
    assert "demo: manage.py migrate ended with 1." in found.stderr


def test_a_port_that_is_taken_is_told(local):
    """With what to type instead."""
    taken = str(local.facts["port"])

    found = run(
        sys.executable, "-m", "example_project.demo", "--port", taken, **local.env
    )

    assert found.returncode == 1
    assert f"port {taken} cannot be used" in found.stderr


def test_outside_of_the_local_lakebase_it_says_how_to_run_it(monkeypatch):
    """Instead of touching a real workspace."""
    monkeypatch.delenv("LAKEBASE_LOCAL_URL", raising=False)

    found = run(sys.executable, "-m", "example_project.demo")

    assert (found.returncode, found.stderr) == (1, "Run it as: make demo\n")


@pytest.mark.parametrize(
    "command",
    [["check"], ["makemigrations", "--check", "--dry-run"]],
    ids=["check", "migrations"],
)
def test_the_project_is_in_order(local, command):
    """Checks pass, and every model has its migration."""
    own = {**local.env, "DJANGO_SETTINGS_MODULE": "example_project.settings"}

    found = run(sys.executable, "manage.py", *command, **own)

    assert found.returncode == 0, found.stderr
