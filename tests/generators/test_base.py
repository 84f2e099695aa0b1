"""The generator contract: pixels and x are inverse, identities tell generators apart, what is missing says so."""

import pytest
import torch
from torch import Tensor, nn

from lcg.generators.base import Generator, pixels_to_x, weights_sha256, x_to_pixels


class Linear(Generator):
    latent_shape, image_shape = (2,), (3, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 3)
        nn.init.ones_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def decode(self, z: Tensor) -> Tensor:
        return self.map(z)[:, :, None, None]


def test_pixels_survive_the_way_through_x() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(2, -1, -1, 3)
    x = pixels_to_x(pixels)
    assert x.shape == (2, 3, 16, 16) and x.min() == -1.0 and x.max() == 1.0
    assert torch.equal(x_to_pixels(x), pixels)


def test_x_outside_the_range_is_clamped() -> None:
    assert x_to_pixels(torch.tensor([-3.0, 3.0, 0.0]).reshape(3, 1, 1, 1)).flatten().tolist() == [0, 255, 128]


def test_wrong_images_are_refused() -> None:
    with pytest.raises(TypeError, match=r"must be uint8 in \[0, 255\], got torch\.float32"):
        pixels_to_x(torch.zeros(1, 2, 2, 3))
    with pytest.raises(ValueError, match=r"must be \(B, H, W, C\), got shape \(2, 2, 3\)"):
        pixels_to_x(torch.zeros(2, 2, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\)"):
        x_to_pixels(torch.zeros(2, 2))


def test_the_optional_parts_say_what_to_do() -> None:
    with pytest.raises(NotImplementedError, match=r"Linear has no encoder.*use a generator that has one"):
        Linear().encode(torch.zeros(1, 3, 1, 1))
    with pytest.raises(NotImplementedError, match=r"Linear has no prior of its own.*lcg fit"):
        Linear().sample_latents(1)


def test_decode_is_not_optional() -> None:
    with pytest.raises(TypeError, match="decode"):
        Generator()


def test_identity_follows_the_weights() -> None:
    a, b = Linear(), Linear()
    assert a.identity() == b.identity()
    assert a.identity()["latent_shape"] == [2] and a.identity()["class"].endswith("Linear")
    with torch.no_grad():
        b.map.bias[1] += 1e-6
    assert a.identity()["weights_sha256"] != b.identity()["weights_sha256"]


def test_the_hash_sees_types_and_shapes_and_takes_every_tensor() -> None:
    def hashed(value: Tensor) -> str:
        module = nn.Module()
        module.register_buffer("value", value)
        return weights_sha256(module)

    values = [
        torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(4, dtype=torch.int32),
        torch.zeros(8, dtype=torch.bfloat16),
    ]
    values += [torch.tensor(1.0), torch.tensor(True), torch.zeros(0), torch.zeros(2, 3).T]
    assert len({hashed(value) for value in values}) == len(values)


def test_device_is_that_of_the_weights() -> None:
    assert Linear().device == torch.device("cpu") and Linear().to("meta").device == torch.device("meta")
