"""torchvision beside a torch that it was not built for, such as PyPI's beside the CPU build.

There its compiled operators do not load, and its import ends with

    RuntimeError: operator torchvision::nms does not exist

for want of two names, `nms` and `qnms`, that it describes but that nothing here calls. The extra `fid` needs
torchvision, and torchmetrics imports torch-fidelity wherever that is installed, so Lightning too would be gone. Hence
`import lcg` puts a finder before all others, which waits for the first import of torchvision, by whomever. It lets it
run, and only upon this very error declares the two names and runs it once more: where torchvision fits its torch, or is
not installed, nothing changes. Declared operators have no implementation; to call one raises NotImplementedError.

What imports torchmetrics or Lightning before lcg meets the error nevertheless, and is helped by importing lcg first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "torchvision"
DECLARED = "operators_declared_by_lcg"
"""The attribute of torchvision that keeps the declarations: they vanish with their library."""

OPERATORS = ("nms", "qnms")


class OperatorsFinder:
    """Finds torchvision as the other finders do, and has it loaded by an `OperatorsLoader`."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != PACKAGE:
            return None
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        if spec is not None and spec.loader is not None:
            loader: Any = OperatorsLoader(spec.loader)
            spec.loader = loader
        return spec


class OperatorsLoader:
    """Another loader, which it hands all questions to, but that a module which misses operators is run again.

    Args:
        native: that loader.
    """

    def __init__(self, native: Any) -> None:
        self.native = native

    def __getattr__(self, name: str) -> Any:
        return getattr(self.native, name)

    def exec_module(self, module: ModuleType) -> None:
        try:
            self.native.exec_module(module)
        except RuntimeError as error:
            if f"{PACKAGE}::" not in str(error):
                raise
            setattr(module, DECLARED, declared_operators())
            self.native.exec_module(module)


def declared_operators() -> Any:
    """A library of torch that declares the missing operators, as long as it lives."""
    import torch

    library = torch.library.Library(PACKAGE, "DEF")
    for operator in OPERATORS:
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def arm() -> None:
    """Puts the finder before all others, once."""
    if not any(isinstance(finder, OperatorsFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, OperatorsFinder())
