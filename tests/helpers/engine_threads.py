"""Background threads of the engine."""

import threading


def join_threads(prefix: str) -> None:
    """Wait at most 15 seconds for each thread whose name starts with *prefix*."""
    for thread in threading.enumerate():
        if thread.name.startswith(prefix):
            thread.join(15)
