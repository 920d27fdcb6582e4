"""The import of the Databricks SDK, and the filter of its log records."""

import logging

import pytest
from databricks.sdk.config import Config

from django_lakebase.auth.sdk import credentials_filter, import_sdk
from tests.helpers.python_process import run_python

# Starts a thread that imports a service when the main thread imports the package. The
# thread holds the locks of the service modules and waits for the package.
RACE = """
import sys, threading, time
from importlib.machinery import PathFinder, SourceFileLoader

from django.conf import settings

settings.configure()
from django_lakebase.auth.sdk import import_sdk


def other_import():
    try:
        import databricks.sdk.service.postgres
    except Exception:
        pass  # Python may choose either thread for the error.


other = threading.Thread(target=other_import)


def is_waiting():
    frame, names = sys._current_frames()[other.ident], []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return names[0] == "acquire" and names.count("_find_and_load") == 3


class Loader(SourceFileLoader):
    def exec_module(self, module):
        if not other.ident:
            other.start()
            while not is_waiting():
                time.sleep(0.001)
        super().exec_module(module)


class Finder:
    def find_spec(self, name, path=None, target=None):
        spec = None
        if name == "databricks":
            spec = PathFinder.find_spec(name, path)
            spec.loader = Loader(name, spec.origin)
        return spec


sys.meta_path.insert(0, Finder())
import_sdk()
other.join()
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config

print(bool(other.ident), "_attributes" in vars(Config))
"""


def test_import_sdk_builds_the_list_of_settings(monkeypatch):
    """Threads that build it at the same time fail with "dictionary changed size"."""
    Config.attributes()
    monkeypatch.delattr(Config, "_attributes")

    import_sdk()

    assert "_attributes" in vars(Config)


def test_import_sdk_succeeds_while_another_thread_imports_a_service():
    """Python ends one of two imports that wait for each other with an error."""
    assert run_python(RACE).strip() == "True True"


@pytest.mark.parametrize("end", ["", "/", "?o=12"])
def test_filter_removes_bodies_from_records_of_credentials_requests(end):
    """Also if a proxy redirects the request: the SDK logs the address of the target."""
    path = f"POST /api/2.0/postgres/credentials{end}"
    message = f'{path}\n> {{"endpoint": "e"}}\n< 200 OK\n< {{"token": "eyJ"}}'
    record = logging.LogRecord("sdk", logging.DEBUG, "", 1, message, (), None)

    assert credentials_filter.filter(record)

    assert record.getMessage() == f"{path}\n< 200 OK\n< **REDACTED**"


def test_filter_keeps_a_record_that_cannot_be_formatted():
    """Logging ignores or prints such an error; it does not reach the caller."""
    record = logging.LogRecord("sdk", logging.DEBUG, "", 1, "%s %s", (1,), None)

    assert credentials_filter.filter(record)
    assert record.args == (1,)
