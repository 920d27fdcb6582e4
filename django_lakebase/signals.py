"""
Django signals for credentials and connections.

docs/reference/observability.md lists them with their arguments. A signal is sent in the
thread where the event happens, which for credentials is mostly a background thread of
the engine. If a receiver raises an exception, Django logs it and the engine continues.
No argument contains a token.
"""

from django.dispatch import Signal

credential_issued = Signal()
credential_failed = Signal()
connection_opened = Signal()
connection_retried = Signal()
connection_failed = Signal()
session_reopened = Signal()
