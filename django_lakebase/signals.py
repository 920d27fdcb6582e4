"""
Django signals for credentials and connections.

docs/reference/observability.md lists them with their arguments. They are sent in the
thread where the event happens; those of credentials mostly in a background thread of
the engine. Django logs an error in a receiver, which then has no further effect. No
argument contains a token.
"""

from django.dispatch import Signal

credential_issued = Signal()
credential_failed = Signal()
connection_opened = Signal()
connection_retried = Signal()
connection_failed = Signal()
session_reopened = Signal()
