"""Features are the whole's whatever the chunks, a folder's as an array's, and a file's as the network's."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lcg.metrics.inception_cache import cached_features, content_of
from lcg.metrics.inception_features import Features, InceptionExtractor, Recipe
from lcg.metrics.inception_images import image_batches

RECIPE = Recipe("64", None, "0", "0")


def noise(n: int, seed: int = 0) -> Tensor:
    """(n, 20, 16, 3) uint8."""
    return torch.randint(256, (n, 20, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def saved(images: Tensor, folder: Path) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.numpy()).save(folder / f"{number:04}.png")
    return folder


def made_up(n: int, recipe: Recipe = RECIPE, device: str = "cpu") -> Features:
    return Features(torch.rand(n, int(recipe.layer)), torch.rand(n, 1008), recipe, device)


@pytest.fixture(scope="module")
def extractor(network: type[torch.nn.Module], weights: Path) -> Iterator[InceptionExtractor]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "INPUT_IMAGE_SIZE", 75)
        yield InceptionExtractor(weights, layer="64", batch_size=4)


def assert_close(one: Features, other: Features) -> None:
    assert (one.recipe, one.device) == (other.recipe, other.device)
    for a, b in ((one.features, other.features), (one.logits, other.logits)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


def assert_equal(one: Features, other: Features) -> None:
    assert (one.recipe, one.device) == (other.recipe, other.device)
    torch.testing.assert_close((one.features, one.logits), (other.features, other.logits), rtol=0, atol=0)


# --- features ---


def test_features_are_those_of_torch_fidelitys_network(
    extractor: InceptionExtractor, network: type[torch.nn.Module], weights: Path
) -> None:
    x, layers = noise(5), ["64", "logits_unbiased"]
    expected = network("direct", layers, feature_extractor_weights_path=str(weights))(x.permute(0, 3, 1, 2))
    assert_close(extractor(x), Features(*expected, extractor.recipe, "cpu"))
    assert float(expected[0].std(0).min()) > 0


def test_all_layers_have_their_size(network: type[torch.nn.Module], weights: Path, fast: None) -> None:
    for layer in ("192", "768", "2048"):
        found = InceptionExtractor(weights, layer=layer)(noise(2))
        assert (len(found), found.features.shape, found.logits.shape) == (2, (2, int(layer)), (2, 1008))
        assert found.features.dtype == found.logits.dtype == torch.float32
        assert float((found.features[0] - found.features[1]).abs().max()) > 0


def test_chunks_have_the_features_of_the_whole(extractor: InceptionExtractor) -> None:
    x = noise(11)
    whole = extractor(x)
    for size in (1, 3, 11):
        assert_close(Features.join(extractor(chunk) for chunk in x.split(size)), whole)


def test_a_folder_has_the_features_of_the_array(extractor: InceptionExtractor, tmp_path: Path) -> None:
    x = noise(6)
    assert_equal(extractor(saved(x, tmp_path / "images")), extractor(x))
    assert_equal(extractor(x.numpy()), extractor(x))


@pytest.mark.usefixtures("fidelity")
@pytest.mark.parametrize("resize", [None, 9, 32])
def test_folders_and_arrays_are_read_as_torch_fidelity_reads_folders(resize: int | None, tmp_path: Path) -> None:
    from torch_fidelity.utils import prepare_input_from_id

    x = noise(7)
    folder = saved(x, tmp_path / "images")
    theirs = prepare_input_from_id(1, input1=str(folder), samples_resize_and_crop=resize or 0, verbose=False)
    expected = torch.stack([theirs[number] for number in range(len(theirs))])
    for images in (x, x.numpy(), folder, str(folder)):
        batches = list(image_batches(images, resize, size=3))
        assert [len(batch) for batch in batches] == [3, 3, 1]
        torch.testing.assert_close(torch.cat(batches), expected, rtol=0, atol=0)


def test_joined_features_keep_their_order() -> None:
    one, other = made_up(3), made_up(2)
    joined = Features.join([one, other])
    assert len(joined) == 5
    assert torch.equal(joined.features, torch.cat((one.features, other.features)))
    assert torch.equal(joined.logits, torch.cat((one.logits, other.logits)))


def test_features_of_several_extractors_are_not_joined() -> None:
    with pytest.raises(
        ValueError, match=r"`parts` must be of one extractor, got Recipe\(.*on cpu; .* on cuda; extract"
    ):
        Features.join([made_up(2), made_up(2, device="cuda")])
    with pytest.raises(
        ValueError, match=r"`parts` must be of one extractor, got .*resize=None.*; .*resize=7.*; extract"
    ):
        Features.join([made_up(2), made_up(2, replace(RECIPE, resize=7))])
    with pytest.raises(ValueError, match=r"`parts` must be of one extractor, got no parts"):
        Features.join([])


def test_features_of_other_shapes_are_refused() -> None:
    message = r"must be \(N, 64\) and \(N, 1008\), got shapes \(2, 65\) and \(2, 1008\); take them from an Inc"
    with pytest.raises(ValueError, match=message):
        Features(torch.rand(2, 65), torch.rand(2, 1008), RECIPE, "cpu")
    with pytest.raises(ValueError, match=r"got shapes \(2, 64\) and \(3, 1008\)"):
        Features(torch.rand(2, 64), torch.rand(3, 1008), RECIPE, "cpu")


def test_chunks_are_checked(extractor: InceptionExtractor) -> None:
    with pytest.raises(ValueError, match=r"`images` must be at least one, got none; leave out empty chunks"):
        extractor(noise(0))
    with pytest.raises(TypeError, match=r"`images` must be uint8 in 0..255, got torch.float32"):
        extractor(noise(2) / 255)
    with pytest.raises(ValueError, match=r"`images` must be uint8 images without NaN"):
        extractor(noise(2) / torch.zeros(()))
    with pytest.raises(ValueError, match=r"`images` must be \(N, H, W, 3\), got shape \(20, 16, 3\)"):
        extractor(noise(2)[0])


# --- the cache ---


def test_cached_features_are_the_uncached_ones(extractor: InceptionExtractor, tmp_path: Path) -> None:
    x = noise(5)
    uncached = extractor(x)
    for _ in range(2):
        assert_equal(cached_features(tmp_path / "a" / "b", x, extractor), uncached)
    (file,) = (tmp_path / "a" / "b").iterdir()
    assert file.name.startswith("inception-") and file.suffix == ".safetensors"


def test_chunks_are_made_only_where_there_is_no_file(extractor: InceptionExtractor, tmp_path: Path) -> None:
    x, made = noise(5), []

    def decoded() -> Iterator[Tensor]:
        made.append(len(x))
        yield from x.split(2)

    with pytest.raises(ValueError, match=r"`content` must say what the images of a function are, got None; pass, for"):
        cached_features(tmp_path, decoded, extractor)
    first = cached_features(tmp_path, decoded, extractor, content="store 0123, rows 0..5")
    assert_close(first, extractor(x))
    assert_equal(cached_features(tmp_path, decoded, extractor, content="store 0123, rows 0..5"), first)
    assert made == [5]
    cached_features(tmp_path, decoded, extractor, content="store 0123, rows 5..10")
    assert made == [5, 5]


@pytest.mark.parametrize("other", ["layer", "resize", "weights_sha256", "torch_fidelity", "content"])
def test_what_features_depend_on_has_files_of_its_own(
    extractor: InceptionExtractor, other: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, values = noise(2), {"resize": 20, "weights_sha256": "1", "torch_fidelity": "0.3"}
    cached_features(tmp_path, x, extractor, content="x")
    if other == "layer":
        extractor = InceptionExtractor(weights, layer="192")
    elif other in values:
        changed: Any = {other: values[other]}
        monkeypatch.setattr(extractor, "recipe", replace(extractor.recipe, **changed))
    cached_features(tmp_path, x, extractor, content="y" if other == "content" else "x")
    assert len(list(tmp_path.iterdir())) == 2


def test_content_is_pixels_in_order(extractor: InceptionExtractor, tmp_path: Path) -> None:
    x = noise(4)
    one = content_of(x, extractor)
    assert one == content_of(x.numpy(), extractor) == content_of(x.clone(), extractor)
    changed = x.clone()
    changed[3, 19, 15, 2] ^= 1
    others = [content_of(y, extractor) for y in (changed, x.flip(0), x[:3], x.reshape(4, 16, 20, 3))]
    folders = [saved(y, tmp_path / name) for name, y in (("a", x), ("b", x), ("c", changed), ("d", x.flip(0)))]
    a, b, c, d = (content_of(folder, extractor) for folder in folders)
    assert a == b
    assert len({one, *others, a, c, d}) == 8
    with pytest.raises(FileNotFoundError, match=r"`images` must be a folder of images, .*/none is none"):
        content_of(tmp_path / "none", extractor)


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "device", "other"])
def test_damaged_files_are_made_again(
    extractor: InceptionExtractor, damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = noise(3)
    whole = cached_features(tmp_path, x, extractor)
    (file,) = tmp_path.iterdir()
    data = file.read_bytes()
    changed = bytearray(data)
    changed[-1] ^= 1
    damaged = {"cut": data[:-100], "empty": b"", "bit": bytes(changed), "device": data.replace(b'"cpu"', b'"gpu"')}
    if damage == "other":
        cached_features(tmp_path, x, extractor, content="other")
        (other,) = (path for path in tmp_path.iterdir() if path != file)
        damaged["other"] = other.read_bytes()
    file.write_bytes(damaged[damage])
    assert damaged[damage] != data
    with caplog.at_level(logging.WARNING):
        assert_equal(cached_features(tmp_path, x, extractor), whole)
    assert f"{file} is damaged and made again" in caplog.text
    caplog.clear()
    assert_equal(cached_features(tmp_path, x, extractor), whole)
    assert not caplog.text and np.array_equal(_payload(file.read_bytes()), _payload(data))


def _payload(file: bytes) -> np.ndarray:
    """What follows the header, whose order of names is free."""
    return np.frombuffer(file[8 + int.from_bytes(file[:8], "little") :], np.uint8)
