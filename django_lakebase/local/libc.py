"""Process settings of the kernel."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def load_libc() -> ctypes.CDLL:
    """Return the C library."""
    return ctypes.CDLL(None)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send *number* to this process when its parent ends (Linux)."""
    if sys.platform == "linux":
        load_libc().prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends (Linux)."""
    if sys.platform == "linux":
        load_libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
