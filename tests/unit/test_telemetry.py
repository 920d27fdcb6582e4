"""Telemetry where OpenTelemetry is not installed."""

import subprocess
import sys


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
