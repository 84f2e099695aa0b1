"""Scores from a network in an ONNX file, run by ONNX Runtime.

An ONNX file holds a graph of known operations and their weights; nothing in it is code that could do anything else.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lcg.labels.base import Floats, Images
from lcg.labels.resizing import resized
from lcg.labels.scorer import Scorer, stated, table_of

if TYPE_CHECKING:
    from onnxruntime import InferenceSession  # type: ignore[import-untyped]

Activation = Literal["none", "sigmoid", "softmax"]


class OnnxScorer(Scorer):
    """Scores by a classifier in an ONNX file with one input, images (N, 3, H, W) or (N, H, W, 3) in float32.

    Args:
        file: the ONNX file.
        names: of its outputs, in order.
        activation: what is applied to them: `sigmoid` and `softmax` make them probabilities.
        mean: of each channel, subtracted from bytes in [0, 255]; such as [123.7, 116.3, 103.5].
        std: of each channel, by which the difference is divided.
        size: [height, width] of its images; None for what the file says.
        probabilities: whether what it gives are probabilities already.
        channels: `first` for (N, 3, H, W), `last` for (N, H, W, 3).
        threads: that it uses.
        trained_on: what it was trained on, in words; for a benchmark's judge.

    Raises:
        ImportError: ONNX Runtime is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX, has several inputs or outputs, or gives another number of scores.
    """

    def __init__(
        self,
        file: str,
        names: list[str],
        activation: Activation = "none",
        mean: tuple[float, float, float] = (127.5, 127.5, 127.5),
        std: tuple[float, float, float] = (127.5, 127.5, 127.5),
        size: list[int] | None = None,
        probabilities: bool = False,
        channels: Literal["first", "last"] = "first",
        threads: int = 1,
        trained_on: str | None = None,
    ) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"`names` must name each output once, got {names}")
        self.file, self.names, self.activation, self.channels = file, tuple(names), activation, channels
        self.probabilities = probabilities or activation != "none"
        self.mean, self.std = (np.asarray(v, np.float32) for v in (mean, std))
        self.network = OnnxNetwork(file, threads)
        self.size = self.network.image_size(channels) if size is None else (size[0], size[1])
        if self.size is None:
            raise ValueError(f"{file} does not say the size of its images; give `size`, such as [224, 224]")
        self.provenance = stated(trained_on)
        self.scores(np.zeros((1, *self.size, 3), np.uint8))

    def scores(self, images: Images) -> Floats:
        assert self.size is not None  # told in the constructor
        x = (resized(images, *self.size).astype(np.float32) - self.mean) / self.std
        outputs = self.network.run(x.transpose(0, 3, 1, 2) if self.channels == "first" else x)
        if outputs.ndim == 2 and outputs.shape[1:] == (1,) and len(self.names) == 1:
            outputs = outputs[:, 0]
        return activated(table_of(outputs, len(images), self.names, self.file), self.activation)

    def identity(self) -> dict[str, Any]:
        return {
            "class": "lcg.labels.onnx.OnnxScorer",
            "file_sha256": self.network.sha256,
            "names": list(self.names),
            "activation": self.activation,
            "mean": self.mean.tolist(),
            "std": self.std.tolist(),
            "size": list(self.size or ()),
            "channels": self.channels,
        }


class OnnxNetwork:
    """A graph with one input and one output.

    Args:
        file: the ONNX file.
        threads: that it uses.
        optimise: whether ONNX Runtime may rearrange the graph.

    Raises:
        ImportError: ONNX Runtime is not installed.
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX, or has several inputs or outputs.
    """

    def __init__(self, file: str, threads: int = 1, optimise: bool = True) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"running {file} needs ONNX Runtime: pip install 'lcg[faces]'") from error
        if not Path(file).is_file():
            raise FileNotFoundError(f"no ONNX file at {file}; give the file that the network was exported to")
        content = Path(file).read_bytes()
        self.file, self.sha256 = file, hashlib.sha256(content).hexdigest()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session: InferenceSession = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own kinds, which are not of one family
            raise ValueError(f"{file} is no ONNX file that ONNX Runtime can load ({error}); export it again") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"{file} must have one input, images, and one output, scores; it has "
                f"{[i.name for i in inputs]} and {[o.name for o in outputs]}; export the part of it that has"
            )
        self._input, self._output = inputs[0], outputs[0]

    def image_size(self, channels: Literal["first", "last"]) -> tuple[int, int] | None:
        """(height, width) that the file asks for; None where it leaves them open."""
        shape = self._input.shape
        sizes = shape[2:4] if channels == "first" else shape[1:3]
        return (sizes[0], sizes[1]) if len(shape) == 4 and all(isinstance(s, int) for s in sizes) else None

    def run(self, x: Floats) -> Floats:
        """The output for a batch. Raises ValueError where the network does not take it."""
        batch = self._input.shape[0]
        fixed = batch if isinstance(batch, int) and batch > 0 else None
        if len(x) == 0:
            return np.empty((0, *[s if isinstance(s, int) else 0 for s in self._output.shape[1:]]), np.float32)
        try:
            if fixed is None:
                return self._call(x)
            padded = np.concatenate([x, np.zeros((-len(x) % fixed, *x.shape[1:]), np.float32)])
            return np.concatenate([self._call(padded[s : s + fixed]) for s in range(0, len(padded), fixed)])[: len(x)]
        except Exception as error:  # its own kinds, which are not of one family
            raise ValueError(
                f"{self.file} asks for {self._input.type} {self._input.shape} and does not take images of shape "
                f"{tuple(x.shape)} ({error}); give `size` and `channels` as it wants them"
            ) from error

    def _call(self, x: Floats) -> Floats:
        found = self._session.run([self._output.name], {self._input.name: np.ascontiguousarray(x, np.float32)})[0]
        return np.asarray(found, np.float32)


def activated(scores: Floats, activation: Activation) -> Floats:
    """Scores (N, S) after the activation, over the columns where it is softmax."""
    if activation == "sigmoid":
        return np.exp(-np.logaddexp(0, -scores)).astype(np.float32)
    if activation == "softmax":
        e = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(e / e.sum(1, keepdims=True))
    return scores
