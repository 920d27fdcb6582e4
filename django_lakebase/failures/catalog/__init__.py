"""
The failure table: how each failure is recognised, its summary, hint and action.

The table is the single source of what the engine raises, what ``lakebase_check`` prints
and what docs/reference/errors.md lists. psycopg reports a failed connect without an
SQLSTATE, and the gateways of the service have messages that PostgreSQL does not have,
so failures are recognised by text. The rows of each source are tried from top to
bottom, and the first match wins: the order of the rows in settings.py, workspace.py and
server.py matters.
"""

from .server import SERVER_FAILURES
from .settings import SETTINGS_FAILURES
from .workspace import WORKSPACE_FAILURES

FAILURES = (*SETTINGS_FAILURES, *WORKSPACE_FAILURES, *SERVER_FAILURES)
