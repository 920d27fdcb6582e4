"""Warm-up before a fork: fetch in the parent what its children would fetch again."""

from dataclasses import replace

from django.db import connections

from .base import LakebaseMixin
from .connect.connector import Connector


def warm(*aliases: str, timeout: float | None = None) -> None:
    """
    Import the SDK, log in to the workspace and fetch a credential; open no connection.

    Call it when a worker starts, in the process that forks. Without *aliases* it warms
    up all aliases that use this engine. It skips aliases that have a PASSWORD or
    another engine, because they need nothing from the workspace. Each alias takes up to
    *timeout* seconds, with retries; the default is its ``OPTIONS["connect_budget"]``.

    Raises LakebaseError (an OperationalError) and SettingsError (an
    ImproperlyConfigured), as connecting does.
    """
    for alias in aliases or connections:
        wrapper = connections[alias]
        if isinstance(wrapper, LakebaseMixin):
            target = wrapper.get_target()
            if timeout is not None:
                target = replace(target, connect_budget=timeout)
            Connector(target, {}, wrapper.get_new_connection).warm()
