"""Inception with random weights: the real ones are 91 MB.

Weights are drawn as He et al. 2015 do, so that activations neither vanish nor explode.
"""

import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from lcg.metrics.inception_features import import_fidelity


@pytest.fixture(scope="session")
def fidelity() -> ModuleType:
    if find_spec("torch_fidelity") is None:
        pytest.skip("needs the extra `fid`")
    return import_fidelity()[0]


@pytest.fixture(scope="session")
def network(fidelity: ModuleType) -> type[torch.nn.Module]:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3


@pytest.fixture(scope="session")
def state(network: type[torch.nn.Module]) -> dict[str, Tensor]:
    """He-initialised weights of the network's shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(network, "load_state_dict", lambda *_: None)
        shapes = network("untrained", ["64"], feature_extractor_weights_path="none").state_dict()
    rng = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(value.shape, generator=rng) * math.sqrt(2 / value[0].numel()) if value.ndim > 1 else value
        for name, value in shapes.items()
    }


@pytest.fixture(scope="session")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def fast(network: type[torch.nn.Module]) -> Iterator[None]:
    """The network resizes to 75 pixels, its least, rather than 299: 16 times faster, by the same code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "INPUT_IMAGE_SIZE", 75)
        yield
