"""
A Django database backend for Databricks Lakebase: version and public functions.

PYTEST_DONT_REWRITE: the pytest plugin makes pytest rewrite the assertions of the whole
distribution, and warn if this package is already imported. There are none to rewrite.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .warmup import warm

__version__ = "0.1.0"
__all__ = ["__version__", "warm"]


def __getattr__(name: str) -> Any:
    # Imported on first use, because this package is imported before Django is
    # configured.
    if name == "warm":
        from .warmup import warm

        return warm
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
