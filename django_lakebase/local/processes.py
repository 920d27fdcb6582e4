"""What this process and its children ask of the kernel and the C library."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_M_MMAP_THRESHOLD = -3
# Bytes: glibc's own first threshold.
MMAP_THRESHOLD = 128 * 1024


def load_libc() -> ctypes.CDLL:
    """Return the C library."""
    return ctypes.CDLL(None)


def die_with_parent(number: signal.Signals) -> None:
    """Ask the kernel to send *number* to this process when its parent ends (Linux)."""
    if sys.platform == "linux":
        load_libc().prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def map_large_allocations() -> None:
    """
    Give memory of large blocks back to the system at once (glibc).

    asyncio has two buffers of 256 KiB for each TLS connection. Left to itself, glibc
    soon takes them from the heap, which small blocks between them keep from shrinking:
    a process that serves short connections for an hour grows by some megabytes.
    """
    mallopt = getattr(load_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
