"""Scores from a network in a file that holds a program: TorchScript, or what `torch.export` made.

Loading executes code that the file brings, so nothing is loaded without `trust` (`lcg.generators.programs`).
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

from lcg.generators.programs import load_program, read_program
from lcg.labels.base import Floats, Images
from lcg.labels.onnx import Activation, activated
from lcg.labels.resizing import resized
from lcg.labels.scorer import Scorer, stated, table_of


class ProgramScorer(Scorer):
    """Scores by a classifier of images (N, 3, H, W) in float32, an exported program or TorchScript.

    Args:
        file: made by `torch.export.save` or `torch.jit.save`; its batch must have any size.
        names: of its outputs (N, S), in order.
        size: [height, width] of its images.
        activation: what is applied to the outputs: `sigmoid` and `softmax` make them probabilities.
        mean: of each channel, subtracted from bytes in [0, 255].
        std: of each channel, by which the difference is divided; mean and std of 127.5 give [-1, 1].
        probabilities: whether what it gives are probabilities already.
        device: where it runs.
        trust: whether the file may execute code on this machine; without it it is not opened.
        trained_on: what it was trained on, in words; for a benchmark's judge.

    Raises:
        ValueError: not trusted, damaged, no program, or it gives something else than a score per name.
        OSError: the file is missing or cannot be read.
    """

    def __init__(
        self,
        file: str,
        names: list[str],
        size: list[int],
        activation: Activation = "none",
        mean: tuple[float, float, float] = (127.5, 127.5, 127.5),
        std: tuple[float, float, float] = (127.5, 127.5, 127.5),
        probabilities: bool = False,
        device: str = "cpu",
        trust: bool = False,
        trained_on: str | None = None,
    ) -> None:
        if not trust:
            raise ValueError(
                f"`trust` must be true to load {file}: loading an exported program or TorchScript can execute code "
                "that the file brings; check where it comes from, or export the network to ONNX"
            )
        if not names or len(set(names)) != len(names):
            raise ValueError(f"`names` must name each output once, got {names}")
        if len(size) != 2 or min(size) < 1:
            raise ValueError(f"`size` must be height and width, such as [64, 64], got {size}")
        self.file, self.names, self.activation, self.device = file, tuple(names), activation, torch.device(device)
        self.size, self.probabilities = (size[0], size[1]), probabilities or activation != "none"
        self.mean, self.std = (np.asarray(v, np.float32) for v in (mean, std))
        content = read_program(file)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.provenance = stated(trained_on)
        _, program = load_program(content, file)
        self.program = program.to(self.device)
        for rows in (1, 3):
            self.scores(np.zeros((rows, *self.size, 3), np.uint8))

    @torch.no_grad()
    def scores(self, images: Images) -> Floats:
        if not len(images):
            return np.empty((0, len(self.names)), np.float32)
        x = (resized(images, *self.size).astype(np.float32) - self.mean) / self.std
        batch = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).to(self.device)
        try:
            outputs = self.program(batch)
        except Exception as error:  # whatever the program meets
            raise ValueError(
                f"{self.file} must take images {tuple(batch.shape)} in float32, but fails ({error}); give its `size`, "
                "and export it with a dynamic batch"
            ) from error
        if not isinstance(outputs, torch.Tensor):
            raise ValueError(f"{self.file} must return one tensor of scores, got {type(outputs).__name__}; wrap it")
        return activated(table_of(outputs.float().cpu(), len(images), self.names, self.file), self.activation)

    def identity(self) -> dict[str, Any]:
        return {
            "class": "lcg.labels.network.ProgramScorer",
            "file_sha256": self.sha256,
            "names": list(self.names),
            "activation": self.activation,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "size": list(self.size),
        }
