"""
The same engine under the name ``django_lakebase.postgresql``.

For packages that search ENGINE for "postgresql" or compare its last component.
"""

from django_lakebase.base import DatabaseWrapper

__all__ = ["DatabaseWrapper"]
