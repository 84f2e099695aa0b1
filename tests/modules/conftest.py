"""Processes that begin where the test is: a fork has Lightning imported, which takes a new process many seconds."""

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import torch

Fork = Callable[[Callable[[], object]], int]


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Runs a function in a process of its own and gives its number; exit code 0, that of SystemExit, or 1 on errors."""
    started: list[int] = []

    def fork(function: Callable[[], object]) -> int:
        process = os.fork()
        if process:
            started.append(process)
            return process
        code = 1
        try:
            torch.set_num_threads(1)
            function()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(Exception):
                os.fsync(1)
            os._exit(code)

    yield fork
    for process in started:
        with suppress(ProcessLookupError, ChildProcessError):
            if os.waitpid(process, os.WNOHANG) == (0, 0):
                os.kill(process, 9)
                os.waitpid(process, 0)


@pytest.fixture
def ended() -> Callable[[int], int]:
    """Waits for a forked process: its exit code, or minus the signal that it died of."""
    return lambda process: os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
