"""
A lazy import of databricks-sdk: its modules without its package's ``__init__``.

``databricks/sdk/__init__.py`` imports about 45 service modules, of which the engine
needs one or two. Importing any module of the package runs that file first, which takes
most of the time and half of the memory.

How it works. `import_package` puts the package into `sys.modules` as a `LazyPackage`
whose ``__init__`` has not run. The import system needs only its ``__path__`` to import
modules of the package. The first use of anything else, by any code of the process,
runs the real ``__init__`` in the same namespace (`run_init`), and turns the package
into an ordinary module. So does the use of a module that is missing in a package below
it, such as ``databricks.sdk.service.sql`` (`LazySubpackage`). Until then the packages
differ from the real ones only in their type.

Invariants.

- `run_init` holds the lock of the import system for this module, as a plain import
  does: other threads wait, Python detects deadlocks, and a fork is as safe as during a
  plain import. The package is not marked as being initialised meanwhile, because a
  thread that imports a module of the package would then wait for it, and deadlock.
- While ``__init__`` runs, other threads see modules of the package at once, because
  they may have to import them, and wait for all other names.
- The import system asks for names in ``from databricks.sdk import name``. The answer
  is no, so that it tries to import a module, and then asks again in another way.
- If ``__init__`` raises, its names are removed, and the next use runs it again. If it
  raises because two threads wait for each other, this happens at once.

An SDK whose ``__init__`` loads its services lazily would make this module unnecessary:
see docs/internals/lazy-sdk.md.
"""

import contextlib
import importlib
import importlib.util
import sys
import time
from types import ModuleType
from typing import Any

PACKAGE = "databricks.sdk"

# Private, but the same in Python 3.11 to 3.14. There is no public way to hold the lock
# under which other threads import a module, or to recognise the question of a
# ``from`` import. Without them the engine imports the SDK plainly.
_bootstrap: Any = importlib.import_module("importlib._bootstrap")
ModuleLock = _bootstrap._ModuleLockManager  # noqa: SLF001
FROM_IMPORT = _bootstrap._handle_fromlist.__code__  # noqa: SLF001

DeadlockError = _bootstrap._DeadlockError  # noqa: SLF001
# Attempts to run __init__, and the seconds between them.
ATTEMPTS = 5
PAUSE = 0.05

# Whether the thread that holds the lock runs __init__.
_is_running = False


class LazyModule(ModuleType):
    """A module that libraries such as cloudpickle can pickle in spite of its type."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.__name__,)


class LazyPackage(LazyModule):
    """The package databricks.sdk until its ``__init__`` has run."""

    def __getattribute__(self, name: str) -> Any:
        value = ModuleType.__getattribute__(self, name)
        is_final = name.startswith("__") or isinstance(value, ModuleType)
        if is_final and name not in ("__all__", "__dict__"):  # dir() reads it, too.
            return value
        run_init(self)
        return ModuleType.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        module = f"{PACKAGE}.{name}"
        if module in sys.modules:
            # A thread is importing it: wait, or get what this thread has so far.
            return importlib.import_module(module)
        is_asked_for = not name.startswith("__") or name == "__all__"
        if is_asked_for and sys._getframe(1).f_code is not FROM_IMPORT:  # noqa: SLF001
            run_init(self)
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        module = value.__name__ if isinstance(value, ModuleType) else None
        if module != f"{PACKAGE}.{name}" and not name.startswith("__"):
            run_init(self)
        elif type(value) is ModuleType and hasattr(value, "__path__"):
            value.__class__ = LazySubpackage
        ModuleType.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        run_init(self)
        ModuleType.__delattr__(self, name)


class LazySubpackage(LazyModule):
    """A package in databricks.sdk, without the modules that ``__init__`` imports."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            _run_init_if_lazy()
        return ModuleType.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        is_asked_for = not name.startswith("__")
        if is_asked_for and sys._getframe(1).f_code is not FROM_IMPORT:  # noqa: SLF001
            _run_init_if_lazy()
        return ModuleType.__getattribute__(self, name)


def import_package() -> None:
    """Import the package lazily, unless it is imported already."""
    if isinstance(sys.modules.get(PACKAGE), LazyPackage):
        return  # Without the lock: another thread may hold it to run __init__.
    with ModuleLock(PACKAGE):
        if PACKAGE in sys.modules:
            return
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
        package = importlib.util.module_from_spec(spec)
        if type(package) is not ModuleType:
            raise TypeError(f"{PACKAGE} is a {type(package).__name__}")
        package.__class__ = LazyPackage
        sys.modules[PACKAGE] = package
        parent, _, name = PACKAGE.rpartition(".")
        setattr(sys.modules[parent], name, package)


def run_init(package: LazyPackage) -> None:
    """Run the ``__init__`` of *package*, unless it has run or this thread runs it."""
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(DeadlockError):
            return _run_init(package)
        # Another thread waits for the package and holds the lock of one of its modules.
        time.sleep(PAUSE)
    return _run_init(package)


def _run_init_if_lazy() -> None:
    package = sys.modules.get(PACKAGE)
    if isinstance(package, LazyPackage):
        run_init(package)


def _run_init(package: LazyPackage) -> None:
    global _is_running  # noqa: PLW0603 - belongs to the lock.
    with ModuleLock(PACKAGE):
        if _is_running or type(package) is not LazyPackage:
            return
        spec: Any = package.__spec__
        namespace = ModuleType.__getattribute__(package, "__dict__")
        before = set(namespace)
        _is_running = True
        try:
            spec.loader.exec_module(package)
        except BaseException as exc:
            for name in set(namespace) - before:
                if f"{PACKAGE}.{name}" not in sys.modules:
                    del namespace[name]
            if isinstance(exc, AttributeError):
                # Python would report it as a missing attribute of the package.
                text = f"{PACKAGE}: {exc}"
                raise ImportError(text, name=PACKAGE) from exc  # noqa: TRY004
            raise
        finally:
            _is_running = False
        package.__class__ = ModuleType  # type: ignore[assignment]
        for value in list(namespace.values()):
            if isinstance(value, LazySubpackage):
                value.__class__ = ModuleType  # type: ignore[assignment]
