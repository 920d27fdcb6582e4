"""
A Django database backend for Databricks Lakebase.

PYTEST_DONT_REWRITE: pytest warns of plugins' packages that are imported before it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .warmup import warm

__version__ = "0.1.0"
__all__ = ["__version__", "warm"]


def __getattr__(name: str) -> Any:
    # Imported at first use: Django imports this package before it is configured.
    if name == "warm":
        from .warmup import warm

        return warm
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
