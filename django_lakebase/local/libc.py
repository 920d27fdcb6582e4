"""Process settings of the kernel and the C library."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_M_MMAP_THRESHOLD = -3
# Bytes: glibc's initial threshold.
MMAP_THRESHOLD = 128 * 1024


def load_libc() -> ctypes.CDLL:
    """Return the C library."""
    return ctypes.CDLL(None)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send *number* to this process when its parent ends (Linux)."""
    if sys.platform == "linux":
        load_libc().prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def map_large_allocations() -> None:
    """
    Return large blocks to the system as soon as they are freed (glibc).

    asyncio allocates two buffers of 256 KiB for each TLS connection. By default glibc
    raises its threshold and soon allocates them on the heap, which cannot shrink while
    small blocks lie between them: a process that serves short connections for an hour
    grows by a few megabytes. An explicit threshold stays fixed (mallopt(3)).
    """
    mallopt = getattr(load_libc(), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
