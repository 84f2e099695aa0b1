"""Freed memory that is kept for the next step instead of being returned to the system.

A step of sampling allocates the same tensors as the one before. glibc gives large ones back to the system when they are
freed, and the next step waits while the system maps and clears their pages again, with many rows for a good part of its
time. Commands of lcg ask it to keep what it has; a program that imports lcg decides for itself, by calling
this or by setting MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # numbers of glibc's mallopt
LARGE = 1 << 30


def keep_memory() -> bool:
    """Asks the C library to keep up to a gibibyte of freed memory; whether it is one that can be asked."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    return all(mallopt(option, LARGE) == 1 for option in (TRIM_THRESHOLD, MMAP_THRESHOLD))
