"""How much memory a process may still take."""

from __future__ import annotations

import os
from pathlib import Path


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping, page cache that can be dropped included, within limits of the cgroup.

    Where the system does not say (no Linux), half of the memory that there is.

    Args:
        root: of the file system in which the kernel reports.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min([free, *_limits(root)])


def _limits(root: Path) -> list[int]:
    """The limits of the process's own cgroup and of the one that a container shows as the topmost, versions 1 and 2."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    own = {controllers: path.strip("/") for _, controllers, path in groups}
    base = root / "sys/fs/cgroup"
    files = [
        *(base / group / "memory.max" for group in (own.get("", ""), "")),
        *(base / "memory" / group / "memory.limit_in_bytes" for group in (own.get("memory", ""), "")),
    ]
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [int(text) for text in texts if text.isdecimal()]  # else "max"
