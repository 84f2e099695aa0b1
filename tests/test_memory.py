"""Freed memory is kept where the C library can be asked to."""

import platform
import subprocess
import sys

import pytest

from lcg.memory import keep_memory

FAULTS = """
import resource, torch
from lcg.memory import keep_memory
{call}
kept = [torch.ones(1 << 21) for _ in range(8)]; del kept
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    kept = [torch.ones(1 << 21) for _ in range(8)]; del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    """Page faults of ten steps that allocate what the one before them did, 64 MiB."""
    code = FAULTS.format(call=call)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_a_step_does_not_ask_the_system_for_what_the_last_one_freed() -> None:
    assert faults("assert keep_memory()") < 16_000  # ten times 64 MiB are 160 000 pages


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_memory()
