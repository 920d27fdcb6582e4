"""Processes that the emulator started, read from ``/proc``."""

import os
import time
from pathlib import Path

TIMEOUT = 60.0


def is_alive(pid: int) -> bool:
    """Return whether the process *pid* exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until_ended(pid: int) -> None:
    """Wait until the process *pid* is no longer alive."""
    deadline = time.monotonic() + TIMEOUT
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still running"
        os.sched_yield()


def get_children(pid: int) -> list[int]:
    """Return the processes that any thread of *pid* started."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for thread in threads for child in thread.read_text().split()]


def get_descendants(pid: int) -> list[int]:
    """Return the children of *pid*, their children, and so on."""
    children = get_children(pid)
    return children + [each for child in children for each in get_descendants(child)]
