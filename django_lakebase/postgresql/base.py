"""
The engine under the name ``django_lakebase.postgresql``.

For packages that look for the word in ENGINE, or at its last part.
"""

from django_lakebase.base import DatabaseWrapper

__all__ = ["DatabaseWrapper"]
