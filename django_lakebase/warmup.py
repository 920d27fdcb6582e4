"""Warm-up: fetches in a parent process what each of its children would fetch."""

from dataclasses import replace

from django.db import connections

from .base import LakebaseMixin
from .connect.connector import Connector


def warm(*aliases: str, timeout: float | None = None) -> None:
    """
    Import the SDK, log in to the workspace and fetch a credential; open no connection.

    Also fetches the host and the user if the settings do not name them. Call it once,
    in the process that forks, when a worker starts. Without *aliases*, warms up all
    aliases that use this engine. Skips aliases that have a PASSWORD or another engine,
    because they need nothing from the workspace. Retries for up to *timeout* seconds
    per alias; the default is the alias's ``OPTIONS["connect_budget"]``.

    Raises LakebaseError (an OperationalError) or SettingsError (an
    ImproperlyConfigured), as connecting does.
    """
    for alias in aliases or connections:
        wrapper = connections[alias]
        if isinstance(wrapper, LakebaseMixin):
            target = wrapper.get_target()
            if timeout is not None:
                target = replace(target, connect_budget=timeout)
            Connector(target, {}, wrapper.get_new_connection).warm()
