"""
The lazy import of databricks-sdk, which other code of the process must not notice.

Most tests use a small package of the same name, because importing the SDK takes long.
"""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

import django_lakebase
from django_lakebase.auth import lazy_sdk, sdk
from django_lakebase.config.target import Login
from tests.helpers.python_process import run_python

TOP = Path(django_lakebase.__file__).parent.parent
EXTEND_PATH = '__path__ = __import__("pkgutil").extend_path(__path__, __name__)\n'
PACKAGE = {
    "__init__.py": """
import databricks.sdk.core as client
import databricks.sdk.dbutils as dbutils
from databricks.sdk.service import postgres as pkg_postgres
from databricks.sdk.service import sql as pkg_sql
from databricks.sdk.service.postgres import PostgresAPI
from databricks.sdk.service.catalog import CredentialsAPI
from databricks.sdk.service.provisioning import CredentialsAPI

__all__ = ["PostgresAPI", "WorkspaceClient"]


def make():
    return WorkspaceClient()


class WorkspaceClient:
    config = client.Config
""",
    "core.py": "from . import useragent\nfrom .config import *\nclass ApiClient: ...\n",
    "config.py": "class Config:\n    @classmethod\n    def attributes(cls): pass\n",
    "useragent.py": "",
    "dbutils.py": "from databricks.sdk import core\n",
    # Like the module `runtime` of the SDK, which logs in when it is imported.
    "runtime.py": "raise ValueError('no login')\n",
    # Two modules that import each other.
    "first.py": "from . import second\n",
    "second.py": "from . import first\n",
    "service/__init__.py": "",
    "service/postgres.py": "class PostgresAPI: pass\n",
    "service/iam.py": "class CurrentUserAPI: pass\n",
    "service/sql.py": "class QueriesAPI: pass\n",
    "service/catalog.py": "class CredentialsAPI: pass\n",
    "service/provisioning.py": "class CredentialsAPI: pass\n",
}
SERVICES = ("postgres", "sql", "catalog", "provisioning", "iam")
LAZY = """
import importlib, sys
from django_lakebase.auth import lazy_sdk
lazy_sdk.import_package()
for name in ("core", "service.postgres"):
    importlib.import_module("databricks.sdk." + name)
assert type(sys.modules["databricks.sdk"]) is lazy_sdk.LazyPackage
assert "databricks.sdk.service.sql" not in sys.modules
"""
PLAIN = "import importlib, sys\nimport databricks.sdk\n"
FAILING = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "databricks.sdk.service.sql":
            raise {error}("broken")
sys.meta_path.insert(0, finder := Finder())
"""
# What other code may do with the package. Each must print the same in both cases.
USES = {
    "import": "import databricks.sdk as d; print(d.WorkspaceClient, d.client)",
    "from import": "from databricks.sdk import WorkspaceClient as w; print(w.config)",
    "star import": "exec('from databricks.sdk import *', n := {}); print(sorted(n))",
    "attribute of parent": "import databricks; print(databricks.sdk.pkg_sql)",
    "module as attribute": "print(sys.modules['databricks.sdk'].dbutils.core)",
    "module of a subpackage": "import databricks.sdk as d; print(d.service.sql)",
    "module of an imported subpackage": """
s = importlib.import_module("databricks.sdk.service")
print(s.sql.QueriesAPI, s.postgres, hasattr(s, "nonsense"), hasattr(s, "__wrapped__"))
""",
    "dir of a subpackage": """
print(sorted(set(dir(sys.modules["databricks.sdk.service"])) - {"iam"}))
""",
    "vars of a subpackage": """
print("sql" in vars(sys.modules["databricks.sdk.service"]))
""",
    "module by from": "from databricks.sdk import dbutils; print(dbutils.core)",
    "dir": "import databricks.sdk as d; print(sorted(dir(d)))",
    "vars": "import databricks.sdk as d; print(sorted(vars(d)))",
    "names to export": "import databricks.sdk as d; print(d.__all__)",
    "inspect": """
import inspect, databricks.sdk as d
print([name for name, _ in inspect.getmembers(d)])
print(inspect.getsource(d), inspect.ismodule(d), inspect.getmodule(d.make))
""",
    "metadata": """
import databricks.sdk as d, importlib.resources, pkgutil
print(d, d.__doc__, d.__package__, d.__path__, d.__loader__.name, d.__spec__.origin)
print([m.name for m in pkgutil.iter_modules(d.__path__)])
print(pkgutil.get_data("databricks.sdk", "config.py"))
print(importlib.util.find_spec("databricks.sdk").name)
""",
    "missing name": """
import databricks.sdk as d
print(hasattr(d, "nonsense"), hasattr(d, "__wrapped__"), hasattr(d, "runtime"))
try:
    from databricks.sdk import nonsense
except ImportError as exc:
    print(exc)
""",
    "module that raises": """
try:
    from databricks.sdk import runtime
except ValueError as exc:
    print(exc)
""",
    "identity": """
from databricks.sdk.service.postgres import PostgresAPI
before = PostgresAPI()
import databricks.sdk as d
print(d.PostgresAPI is PostgresAPI, isinstance(before, d.pkg_postgres.PostgresAPI))
print(d.make().config is sys.modules["databricks.sdk.config"].Config)
print(d.make.__globals__ is vars(d), sys.modules["databricks"].sdk is d)
""",
    "pickle": """
import pickle
from databricks.sdk.service.postgres import PostgresAPI
text = pickle.dumps(PostgresAPI())
from databricks.sdk import WorkspaceClient
print(type(pickle.loads(text)) is PostgresAPI)
print(pickle.loads(pickle.dumps(WorkspaceClient)) is WorkspaceClient)
""",
    "assignment": """
import databricks.sdk as d
d.WorkspaceClient = 7
print(d.WorkspaceClient, d.make.__name__, d.pkg_sql)
""",
    "deletion": "import databricks.sdk as d; del d.make; print(hasattr(d, 'make'))",
    "mock": """
from unittest import mock
with mock.patch("databricks.sdk.WorkspaceClient", 5):
    from databricks.sdk import WorkspaceClient
    print(WorkspaceClient)
from databricks.sdk import WorkspaceClient
print(WorkspaceClient)
""",
    "reload": """
import databricks.sdk as d
print(importlib.reload(d) is d, d.WorkspaceClient, sorted(vars(d)))
""",
    "reload of a module": """
import databricks.sdk.core
print(importlib.reload(databricks.sdk.core), databricks.sdk.WorkspaceClient)
""",
    "other distribution": """
import databricks.other
from databricks import other, sdk
print(other.VALUE, sdk.WorkspaceClient)
""",
    "afterwards": """
from databricks.sdk import WorkspaceClient
print(type(sys.modules["databricks.sdk"]), len(sys.meta_path))
print(type(sys.modules["databricks.sdk.service"]))
for name, module in sorted(sys.modules.items()):
    if name.startswith("databricks."):
        print(name, module.__spec__.name, getattr(sys.modules[module.__spec__.parent],
              name.rpartition(".")[2], module) is module)
""",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that runs code in a process that finds `PACKAGE`."""
    own, other = (tmp_path_factory.mktemp(name) for name in ("own", "other"))
    for folder in (own, other):
        (folder / "databricks").mkdir()
        (folder / "databricks/__init__.py").write_text(EXTEND_PATH)
    (other / "databricks/other.py").write_text("VALUE = 1\n")
    (own / "databricks/sdk/service").mkdir(parents=True)
    for name, text in PACKAGE.items():
        (own / "databricks/sdk" / name).write_text(text)
    path = os.pathsep.join(str(folder) for folder in (own, other, TOP))

    return lambda code: run_python(code, **{"PYTHONPATH": path, sdk.SWITCH: ""})


@pytest.mark.parametrize("use", USES)
def test_lazy_package_behaves_as_the_plain_one(run, use):
    plain = run(PLAIN + USES[use])

    assert plain
    assert run(LAZY + USES[use]) == plain


def test_other_modules_do_not_load_the_package(run):
    code = """
import inspect, traceback, unittest, warnings
class Test(unittest.TestCase):
    def runTest(self):
        with self.assertWarns(UserWarning):
            warnings.warn("it")
print(Test().run() is None, inspect.getmodule(sys._getframe()))
import databricks.sdk.service.iam, databricks.sdk.first
print("databricks.sdk.service.sql" in sys.modules)
"""
    assert run(LAZY + code).split()[-1] == "False"


def test_lazy_package_can_be_pickled(run):
    """Cloudpickle pickles the modules that a function uses, if it knows their type."""
    code = """
import pickle
for name in ("databricks.sdk", "databricks.sdk.service"):
    print(pickle.loads(pickle.dumps(sys.modules[name])) is sys.modules[name])
"""
    assert run(LAZY + code).split() == ["True", "True"]


@pytest.mark.parametrize("error", ["ImportError", "AttributeError", "SystemExit"])
def test_load_that_raises_is_repeated(run, error):
    """The names of the first half are gone; what was imported lazily still works."""
    code = """
import databricks.sdk
for _ in range(2):
    try:
        from databricks.sdk import WorkspaceClient
    except BaseException as exc:
        print(type(exc).__name__, "broken" in str(exc))
print("client" in type(sys).__getattribute__(databricks.sdk, "__dict__"))
from databricks.sdk.core import ApiClient
sys.meta_path.remove(finder)
from databricks.sdk import WorkspaceClient
print(WorkspaceClient, databricks.sdk.dbutils.__name__, type(databricks.sdk).__name__)
"""
    reported = "ImportError" if error == "AttributeError" else error

    lines = run(LAZY + FAILING.format(error=error) + code).splitlines()

    assert lines[:3] == [f"{reported} True"] * 2 + ["False"]
    assert lines[3] == (
        "<class 'databricks.sdk.WorkspaceClient'> databricks.sdk.dbutils module"
    )


# Two threads. A module waits in the middle of its import until the other thread waits.
PAUSED = """
import threading, time
from importlib.machinery import PathFinder, SourceFileLoader

errors = []

def in_thread(function):
    def run():
        try:
            function()
        except BaseException as exc:
            errors.append(repr(exc))
    return threading.Thread(target=run)

def is_waiting(thread):
    return sys._current_frames()[thread.ident].f_code.co_name in ("acquire", "wait")

class Loader(SourceFileLoader):
    def exec_module(self, module):
        if not other.ident:
            other.start()
            while other.is_alive() and not is_waiting(other):
                time.sleep(0.001)
        super().exec_module(module)

class Finder:
    def find_spec(self, name, path=None, target=None):
        spec = None
        if name == PAUSED:
            spec = PathFinder.find_spec(name, path)
            spec.loader = Loader(name, spec.origin)
        return spec

sys.meta_path.insert(0, Finder())
"""
IMPORT_PACKAGE = """
import importlib, sys
from django_lakebase.auth import lazy_sdk
lazy_sdk.import_package()
"""


@pytest.mark.parametrize("attribute", ["WorkspaceClient", "core.ApiClient"])
def test_package_can_be_loaded_while_a_module_of_it_is_imported(run, attribute):
    """Both threads succeed, and neither sees a module that is not complete."""
    code = f"""
PAUSED = "databricks.sdk.config"
def use():
    import databricks.sdk
    print(databricks.sdk.{attribute}.__name__)
other = in_thread(use)
import databricks.sdk.core
other.join()
print(errors, databricks.sdk.WorkspaceClient.__name__)
"""
    name = attribute.rpartition(".")[2]

    printed = run(IMPORT_PACKAGE + PAUSED + code)

    assert printed.splitlines() == [name, "[] WorkspaceClient"]


@pytest.mark.parametrize(
    "use",
    ["from databricks.sdk import PostgresAPI", "sys.modules['databricks.sdk'].client"],
)
def test_module_can_be_imported_while_the_package_is_loaded(run, use):
    """The other thread waits for names of the package, but not for its modules."""
    code = f"""
PAUSED = "databricks.sdk.service.sql"
def use():
    import databricks.sdk.service.iam
    from databricks.sdk import useragent
    {use}
    print("used")
other = in_thread(use)
from databricks.sdk import WorkspaceClient
other.join()
print(errors)
"""
    assert run(LAZY + PAUSED + code).splitlines() == ["used", "[]"]


def test_engine_does_not_wait_until_the_package_is_loaded(run):
    """Otherwise a refresh in the background delays its caller, or a fork."""
    code = """
PAUSED = "databricks.sdk.service.sql"
from django.conf import settings
settings.configure()
from django_lakebase.auth.sdk import import_sdk
def is_waiting(thread):  # The other thread must not wait, so only a failure takes long.
    return time.monotonic() > end
end = time.monotonic() + 5
def use():
    import_sdk(None, "iam")
    print("imported")
other = in_thread(use)
from databricks.sdk import WorkspaceClient
print("loaded")
other.join()
print(errors)
"""
    printed = run(LAZY + PAUSED + code).splitlines()

    assert printed == ["imported", "loaded", "[]"]


def test_thread_gets_no_name_before_the_package_is_complete(run):
    """The SDK's ``__init__`` imports two classes of the same name."""
    code = """
PAUSED = "databricks.sdk.service.provisioning"
def use():
    from databricks.sdk import CredentialsAPI
    print(CredentialsAPI)
other = in_thread(use)
from databricks.sdk import WorkspaceClient
other.join()
print(errors)
"""
    first, second = run(LAZY + PAUSED + code).splitlines()

    assert first == "<class 'databricks.sdk.service.provisioning.CredentialsAPI'>"
    assert second == "[]"


def test_package_can_be_loaded_while_a_module_of_it_waits_for_it(run):
    """Python ends one of two imports that wait for each other with an error."""
    code = """
PAUSED = "databricks"
def use():
    import databricks.sdk.service.iam
other = in_thread(use)
sys.setswitchinterval(1)  # The main thread continues when both could.
"""
    after = """
print(sys.modules["databricks.sdk"].WorkspaceClient.__name__)
other.join()
print(errors)
"""
    printed = run("import sys" + PAUSED + code + IMPORT_PACKAGE + after)

    assert printed == "WorkspaceClient\n[]\n"


IMPORT_SDK = """
import sys
from django.conf import settings
settings.configure()
from django_lakebase.auth.sdk import import_sdk
from django_lakebase.config.target import Login
"""


@pytest.mark.parametrize(
    ("call", "modules"),
    [
        ("import_sdk()", {"postgres"}),
        ("import_sdk(Login('', ''), 'iam')", {"postgres", "iam"}),
        ("import_sdk(Login('', '', path='shop.client'))", set(SERVICES) - {"iam"}),
        ("import databricks.sdk; import_sdk()", set(SERVICES) - {"iam"}),
    ],
)
def test_import_sdk_loads_only_the_services_of_its_requests(run, call, modules):
    """Unless a function of the project creates the client, or code has loaded all."""
    code = f"{IMPORT_SDK}{call}\nprint(*sys.modules)"
    loaded = set(run(code).split())

    assert {s for s in SERVICES if f"databricks.sdk.service.{s}" in loaded} == modules


@pytest.mark.parametrize("value", ["0", "off"])
def test_variable_switches_the_lazy_import_off(run, value):
    code = f"import os; os.environ['DJANGO_LAKEBASE_LEAN_SDK'] = {value!r}{IMPORT_SDK}"
    loaded = run(f"{code}import_sdk()\nprint(*sys.modules)").split()

    assert "databricks.sdk.service.sql" in loaded
    assert "django_lakebase.auth.lazy_sdk" not in loaded


@pytest.mark.parametrize(
    "surprise",
    [
        "sys.modules['importlib._bootstrap'] = sys",
        "sys.modules['databricks.sdk.service.postgres'] = None",
    ],
)
def test_surprise_falls_back_to_the_plain_import(run, surprise):
    """Python without a private name, and an SDK without a module."""
    code = f"""
import importlib, logging
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)
import django_lakebase.auth.credentials
{surprise}
try:
    import_sdk()
except ImportError:  # Also of the plain import, if a module is missing.
    pass
print("databricks.sdk.service.sql" in sys.modules)
"""
    lines = run(IMPORT_SDK + code).splitlines()

    assert len(lines) == 2
    assert lines[0].startswith("DEBUG:django_lakebase:using the whole databricks-sdk")


def test_missing_class_falls_back_to_the_client_of_the_sdk(monkeypatch, caplog):
    class Incomplete:
        def __init__(self, config):
            raise ImportError("no PostgresAPI")

    monkeypatch.setattr(sdk, "Client", Incomplete)
    arguments = {"host": "http://127.0.0.1:1", "token": "it", "auth_type": "pat"}
    monkeypatch.setattr(sdk, "_check_reachable", lambda _: None)

    with caplog.at_level(logging.DEBUG, "django_lakebase"):
        client = sdk.new_client(Login("", "", arguments=arguments))

    assert type(client).__name__ == "WorkspaceClient"
    assert "no PostgresAPI" in caplog.text


def test_private_names_of_python_exist():
    """The engine works without them, but not lazily."""
    assert lazy_sdk.ModuleLock
    assert lazy_sdk.FROM_IMPORT


def test_real_sdk_is_the_same_after_a_lazy_import():
    code = """
import databricks.sdk as d, inspect, hashlib
names = sorted(set(dir(d)) - {"__builtins__"})
text = repr([(name, getattr(getattr(d, name), "__module__", "")) for name in names])
exec("from databricks.sdk import *", namespace := {})
print(len(names), len(namespace), hashlib.md5(text.encode()).hexdigest(), type(d))
"""
    lazy, plain = (
        subprocess.run(
            [sys.executable, "-c", start + code],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for start in (LAZY, PLAIN)
    )

    assert lazy == plain
