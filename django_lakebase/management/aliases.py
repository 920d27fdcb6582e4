"""The option ``--database`` of the commands: aliases that use this engine."""

from django.core.management.base import CommandError
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from django_lakebase.base import LakebaseMixin


def get_wrapper(alias: str, command: str) -> LakebaseMixin:
    """Return Django's connection for *alias*; raises CommandError."""
    try:
        wrapper = connections[alias]
    except ConnectionDoesNotExist as exc:
        known = ", ".join(connections)
        raise CommandError(
            f'DATABASES has no alias "{alias}"; its aliases are: {known}.'
        ) from exc
    if not isinstance(wrapper, LakebaseMixin):
        engine = wrapper.settings_dict["ENGINE"]
        raise CommandError(
            f'DATABASES["{alias}"] uses the ENGINE "{engine}"; {command} supports only '
            '"django_lakebase".'
        )
    return wrapper
