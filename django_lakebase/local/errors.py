"""Errors that end the command."""


class LocalError(Exception):
    """The emulator cannot run; the text says why and what to do."""
