"""Telemetry without OpenTelemetry, and with settings that are invalid."""

import subprocess
import sys

import pytest
from django.db import connections


def test_telemetry_is_not_imported_without_opentelemetry():
    code = (
        "import sys, importlib.util\n"
        "find = importlib.util.find_spec\n"
        "def none(name, *rest):\n"
        "    return None if name.startswith('opentelemetry') else find(name, *rest)\n"
        "importlib.util.find_spec = none\n"
        "import django\n"
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['django_lakebase'])\n"
        "django.setup()\n"
        "print([m for m in sys.modules if 'telemetry' in m])\n"
    )

    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "options",
    [None, "pool", {}, {"pool": True}, {"pool": "4"}, {"pool": {"name": None}}],
    ids=repr,
)
def test_pool_without_a_valid_name_is_named_after_its_alias(monkeypatch, options):
    pytest.importorskip("opentelemetry")
    from django_lakebase.telemetry import pool_attributes

    monkeypatch.setitem(connections.settings["default"], "OPTIONS", options)

    [name] = pool_attributes("default").values()
    assert name == "django-default"


def test_pool_of_an_alias_outside_the_settings_is_named_after_it():
    """A program may create a wrapper itself."""
    pytest.importorskip("opentelemetry")
    from django_lakebase.telemetry import pool_attributes

    [name] = pool_attributes("elsewhere").values()
    assert name == "django-elsewhere"
