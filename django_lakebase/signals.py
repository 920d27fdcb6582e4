"""
Signals of Django's kind, for whoever wants to hear what the engine does.

They are sent from the thread in which it happens: those of credentials from a thread
of the engine's own, mostly. An error in a receiver is logged by Django and harms
nothing. No argument holds a token. docs/howto/observe.md lists the arguments.
"""

from django.dispatch import Signal

credential_issued = Signal()
credential_failed = Signal()
connection_opened = Signal()
connection_retried = Signal()
connection_failed = Signal()
session_reopened = Signal()
