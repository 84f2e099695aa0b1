"""What memory may be taken, read from a file system like that of the kernel."""

from pathlib import Path

import pytest

from lcg.data.memory import available_memory

GIB = 2**30


def kernel(root: Path, groups: str, **limits: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemAvailable: {40 * 2**20} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    for name, limit in limits.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(limit + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {}, 40),
        ("0::/job\n", {"job/memory.max": str(8 * GIB)}, 8),
        ("0::/job\n", {"job/memory.max": "max", "memory.max": str(9 * GIB)}, 9),  # a container's own top
        ("9:cpu:/\n4:memory:/job\n", {"memory/job/memory.limit_in_bytes": str(7 * GIB)}, 7),
        ("4:memory:/gone\n", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, 40),
    ],
)
def test_the_smallest_limit_counts(tmp_path: Path, groups: str, limits: dict[str, str], expected: int) -> None:
    assert available_memory(kernel(tmp_path, groups, **limits)) == expected * GIB


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert available_memory(tmp_path) > 2**28
    assert available_memory() > 2**24
