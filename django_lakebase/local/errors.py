"""Errors that end the command, with a text for its user."""


class LocalError(Exception):
    """The emulator cannot run; the text says why and what to do."""
