"""A Django database backend for Databricks Lakebase."""

__version__ = "0.1.0"
