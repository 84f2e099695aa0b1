"""Runs the reader of pickles in a process of its own, and takes from it tensors and JSON, which execute nothing.

The process sees neither the environment nor the files of whoever runs it: the pickle is its standard input, a temporary
file its standard output, so it opens none. Its output is read as what strangers write, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lcg.generators.stylegan import unpickle

FACTOR = 8
"""Memory of the process in units of the file, which it holds as bytes, as tensors and as safetensors."""


@dataclass(frozen=True)
class Found:
    """What is in an official pickle.

    Attributes:
        tensors: parameters and buffers of the network, by their official names.
        about: class, constructor's arguments and settings of each module, by its name.
        offline: whether the process could give up the network.
    """

    tensors: dict[str, Tensor]
    about: dict[str, dict[str, Any]]
    offline: bool


def read_isolated(path: Path, network: str, memory: int, seconds: int) -> Found:
    """What is in a pickle, which is not executed.

    Args:
        path: the pickle.
        network: which of its networks.
        memory: bytes that the process may have beside what PyTorch itself takes, and the file eight times.
        seconds: of processor time, and of waiting.

    Raises:
        ValueError: the file is not an official one, is damaged, names what is not allowed, or is past the bounds.
        OSError: it cannot be read.
    """
    bound = memory + FACTOR * path.stat().st_size
    packages = json.dumps([place for place in sys.path if os.path.isabs(place)])
    command = [sys.executable, "-I", unpickle.__file__, network, str(bound), str(seconds), packages]
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    with path.open("rb") as file, tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        try:
            with output.open("wb") as sink:
                done = subprocess.run(
                    command,
                    stdin=file,
                    stdout=sink,
                    stderr=subprocess.PIPE,
                    timeout=seconds,
                    env={**kept, "OMP_NUM_THREADS": "1"},
                    cwd=folder,
                    check=False,
                )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"{path} was not read within {seconds} s; raise `seconds` if you trust it") from error
        if done.returncode != 0:
            raise ValueError(f"{path} cannot be converted: {reason(done, seconds)}")
        try:
            with safe_open(output, framework="pt") as opened:
                header = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            return Found(tensors, json.loads(header["about"]), json.loads(header["isolated"]))
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} cannot be converted: its reader wrote nothing usable ({error})") from error


def reason(done: subprocess.CompletedProcess[bytes], seconds: int) -> str:
    """Why a process failed, in a sentence."""
    lines = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
    if done.returncode == unpickle.REFUSED:
        try:
            return str(json.loads(lines[-1]))
        except json.JSONDecodeError:
            return lines[-1]
    if done.returncode == -getattr(signal, "SIGXCPU", 0) or done.returncode == -getattr(signal, "SIGKILL", 0):
        return f"its reader was stopped, by its bound of {seconds} s of processor time or for want of memory"
    return f"its reader ended with code {done.returncode} ({lines[-1]})"
