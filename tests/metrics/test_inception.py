"""Figures of Inception against their formulas and torch-fidelity's own, with random weights (see conftest.py)."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lcg.metrics import frechet_between
from lcg.metrics import inception_features as module
from lcg.metrics.inception import figures_of, inception_figures
from lcg.metrics.inception_features import WEIGHTS, Features, InceptionExtractor, Recipe, find_weights, import_fidelity
from lcg.metrics.streaming import StreamingFrechet

SMALL: dict[str, Any] = {"layer": "64", "fewest": 2, "kid_subset_size": 20, "kid_subsets": 5, "splits": 3}
FIGURES = ("fid", "kid", "kid_std", "inception_score", "inception_score_std", "precision", "recall", "f_score")


def pictures(n: int, seed: int, contrast: float = 1.0) -> Tensor:
    """(n, 24, 24, 3) uint8: blots of a random colour, size by contrast."""
    rng = torch.Generator().manual_seed(seed)
    coarse = 128 + contrast * 90 * torch.randn(n, 3, 4, 4, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bilinear")
    return fine.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def saved(images: Tensor, folder: Path) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.numpy()).save(folder / f"{number:04}.png")
    return folder


def own_features(network: type[torch.nn.Module], weights: Path, images: Tensor) -> tuple[Tensor, Tensor]:
    net = network("direct", ["64", "logits_unbiased"], feature_extractor_weights_path=str(weights))
    with torch.no_grad():
        features, logits = net(images.permute(0, 3, 1, 2))
    return features.double(), logits.double()


# --- the figures ---


@pytest.mark.usefixtures("fast")
def test_figures_are_their_formulas(network: type[torch.nn.Module], weights: Path) -> None:
    n, k = 66, 3
    x, y = pictures(n, seed=1, contrast=0.7), pictures(n, seed=2)
    found = inception_figures(x, y, weights, layer="64", kid_subset_size=n, kid_subsets=1, splits=1, neighbours=k)
    features, logits = own_features(network, weights, torch.cat((x, y)))
    (f_x, f_y), logits = features.split(n), logits[:n]
    assert found["fid"] == pytest.approx(frechet_between(f_x, f_y), rel=1e-4)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    others = ~torch.eye(n, dtype=torch.bool)
    kid = kernel(f_x, f_x)[others].mean() + kernel(f_y, f_y)[others].mean() - 2 * kernel(f_x, f_y).mean()
    assert found["kid"] == pytest.approx(float(kid), rel=1e-3)  # torch-fidelity's is in single precision
    p = logits.softmax(1)
    divergence = (p * (p.log() - p.mean(0).log())).sum(1).mean()
    assert found["inception_score"] == pytest.approx(float(divergence.exp()), rel=1e-6)
    radius_x, radius_y = (torch.cdist(f, f).kthvalue(k + 1).values for f in (f_x, f_y))
    between = torch.cdist(f_x, f_y)
    assert found["precision"] == pytest.approx(float((between <= radius_y).any(1).double().mean()), abs=1e-6)
    assert found["recall"] == pytest.approx(float((between <= radius_x[:, None]).any(0).double().mean()), abs=1e-6)
    assert 0 < found["precision"] != found["recall"] > 0


@pytest.mark.usefixtures("fast")
def test_arrays_and_folders_give_what_torch_fidelity_gives(fidelity: ModuleType, weights: Path, tmp_path: Path) -> None:
    x, y = pictures(24, seed=1, contrast=0.7), pictures(30, seed=2)
    folders = saved(x, tmp_path / "generated"), saved(y, tmp_path / "real")
    expected = fidelity.calculate_metrics(
        input1=str(folders[0]),
        input2=str(folders[1]),
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        feature_layer_fid="64",
        feature_layer_kid="64",
        feature_layer_prc="64",
        kid_subsets=5,
        kid_subset_size=20,
        isc_splits=3,
        cache=False,
        save_cpu_ram=True,  # without worker processes; the slow test has them
        verbose=False,
    )
    names = dict(zip(FIGURES, as_torch_fidelity_calls_them(fidelity), strict=True))
    for found in (
        inception_figures(x, y.numpy(), weights, **SMALL),
        inception_figures(*folders, weights, **SMALL, batch_size=7),
    ):
        for ours, theirs in names.items():
            assert found[ours] == pytest.approx(expected[theirs], rel=1e-4), ours


def as_torch_fidelity_calls_them(fidelity: ModuleType) -> tuple[str, ...]:
    return (
        fidelity.KEY_METRIC_FID,
        fidelity.KEY_METRIC_KID_MEAN,
        fidelity.KEY_METRIC_KID_STD,
        fidelity.KEY_METRIC_ISC_MEAN,
        fidelity.KEY_METRIC_ISC_STD,
        fidelity.KEY_METRIC_PRECISION,
        fidelity.KEY_METRIC_RECALL,
        fidelity.KEY_METRIC_F_SCORE,
    )


@pytest.mark.slow
def test_the_command_line_says_the_same_at_full_size(fidelity: ModuleType, weights: Path, tmp_path: Path) -> None:
    x, y = pictures(56, seed=1, contrast=0.7), pictures(64, seed=2)
    folders = saved(x, tmp_path / "generated"), saved(y, tmp_path / "real")
    extractor, options = InceptionExtractor(weights), {"kid_subset_size": 50, "kid_subsets": 20, "splits": 4}
    generated = Features.join(extractor(chunk) for chunk in x.split(20))
    found = figures_of(generated, extractor(folders[1]), fewest=2, **options)
    start = "import lcg; "  # which lets torchvision be imported beside any torch
    run = "from torch_fidelity.fidelity import main; main()"
    switches = "--cpu --isc --fid --kid --prc --json --silent --no-cache --feature-extractor inception-v3-compat"
    numbers = "--kid-subsets 20 --kid-subset-size 50 --isc-splits 4"
    command = [sys.executable, "-c", start + run, "--input1", str(folders[0]), "--input2", str(folders[1])]
    done = subprocess.run(
        [*command, *switches.split(), *numbers.split(), "--feature-extractor-weights-path", str(weights)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    expected = json.loads(done.stdout)
    for ours, theirs in zip(FIGURES, as_torch_fidelity_calls_them(fidelity), strict=True):
        assert found[ours] == pytest.approx(expected[theirs], rel=1e-4), ours


@pytest.mark.usefixtures("fast")
def test_features_that_are_not_kept_have_the_same_fid(weights: Path) -> None:
    extractor = InceptionExtractor(weights, layer="64")
    x, y = pictures(70, seed=1, contrast=0.7), pictures(80, seed=2)
    streamed = StreamingFrechet(features=64)
    for images, real in ((x, False), (y, True)):
        for chunk in images.split(9):
            streamed.update(extractor(chunk).features, real=real)
    found = figures_of(extractor(x), extractor(y), kid_subset_size=20)
    assert found["fid"] == pytest.approx(float(streamed.compute()), rel=1e-4)


@pytest.mark.usefixtures("fast")
def test_a_set_is_at_no_distance_from_itself(weights: Path) -> None:
    x = pictures(20, seed=1)
    found = inception_figures(x, x, weights, **SMALL)
    assert found["fid"] == pytest.approx(0, abs=1e-5)
    assert found["precision"] == found["recall"] == found["f_score"] == 1


# --- what they depend on ---


@pytest.mark.usefixtures("fast")
def test_what_the_figures_depend_on_stands_beside_them(weights: Path, tmp_path: Path) -> None:
    wide = saved(pictures(20, seed=1)[:, 4:18], tmp_path / "wide")
    found = inception_figures(wide, pictures(22, seed=2), weights, resize=12, seed=7, **SMALL)
    assert json.loads(json.dumps(found)) == found
    assert set(FIGURES) < set(found)
    assert (found["n_generated"], found["n_reference"]) == (20, 22)
    assert (found["extractor"], found["layer"]) == ("inception-v3-compat", "64")
    assert (found["resize"], found["network_resize"]) == (12, "to 299x299, bilinear as in TensorFlow 1")
    assert found["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found["published_weights"] is False
    assert (found["kid_subsets"], found["kid_subset_size"], found["splits"]) == (5, 20, 3)
    assert (found["neighbours"], found["seed"], found["device"], found["reference_device"]) == (3, 7, "cpu", "cpu")
    from torchvision import extension

    assert found["torchvision_path"] == ("native" if extension._has_ops() else "declared operators")
    assert all(isinstance(found[name], str) for name in ("torch_fidelity", "torchvision"))


# --- refusals: weights ---


def test_missing_weights_are_refused_with_where_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    x = pictures(30, seed=1)
    where = rf"no Inception weights at {tmp_path}/checkpoints/{WEIGHTS}; pass `weights`, or put them there.*never"
    with pytest.raises(FileNotFoundError, match=rf"{where} downloads them: get them from https://github.com/toshas/"):
        inception_figures(x, x, **SMALL)
    with pytest.raises(FileNotFoundError, match=r"no Inception weights at mine.pth; check `weights`"):
        inception_figures(x, x, "mine.pth", **SMALL)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / WEIGHTS).touch()
    assert find_weights() == tmp_path / "checkpoints" / WEIGHTS


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


@pytest.mark.parametrize("content", [b"", b"no weights", Payload()])
def test_files_that_are_not_only_tensors_are_refused_and_not_executed(
    content: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, x = tmp_path / "w.pth", pictures(30, seed=1)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"`weights` must be a file of tensors only, and whole;.*Get it again from"):
        inception_figures(x, x, path, **SMALL)
    assert "executed" not in capsys.readouterr().out


def test_weights_that_are_no_dict_or_not_finite_are_refused(tmp_path: Path) -> None:
    path, x = tmp_path / "w.pth", pictures(30, seed=1)
    torch.save([torch.zeros(2)], path)
    with pytest.raises(ValueError, match=r"`weights` must be a dict of tensors, .* holds a list"):
        inception_figures(x, x, path, **SMALL)
    torch.save({name: torch.tensor([torch.nan]) for name in "abcde"}, path)
    with pytest.raises(ValueError, match=r"`weights` must be finite, .* has NaN or infinity in a, b, c and 2 more"):
        inception_figures(x, x, path, **SMALL)


@pytest.mark.usefixtures("fidelity")
def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path, x = tmp_path / "w.pth", pictures(30, seed=1)
    torch.save({"layer": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"`weights` must be those of inception-v3-compat, .* holds others; get them"):
        inception_figures(x, x, path, **SMALL)


@pytest.mark.usefixtures("fast")
def test_weights_without_finite_features_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    path, x = tmp_path / "w.pth", pictures(4, seed=1)
    variance = "Conv2d_1a_3x3.bn.running_var"
    torch.save({**state, variance: -1 - state[variance]}, path)
    message = "`weights` must give finite features, .*w.pth gives NaN or infinity for 4 of 4 images; get others from"
    with pytest.raises(ValueError, match=message):
        inception_figures(x, x, path, **{**SMALL, "kid_subset_size": 4})


@pytest.mark.usefixtures("fidelity")
def test_figures_that_are_not_finite_are_refused() -> None:
    features = Features(torch.rand(30, 64), torch.zeros(30, 1008), Recipe("64", None, "0", "0"), "cpu")
    features.logits[:, 0] = 3e38
    with pytest.raises(
        ValueError, match=r"`generated` must have figures, inception_score, inception_score_std are NaN"
    ):
        figures_of(features, features, **{name: value for name, value in SMALL.items() if name != "layer"})


def test_features_of_two_recipes_are_refused() -> None:
    one = Features(torch.rand(30, 64), torch.rand(30, 1008), Recipe("64", None, "0", "0"), "cpu")
    other = Features(one.features, one.logits, Recipe("64", 9, "0", "0"), "cpu")
    with pytest.raises(
        ValueError, match=r"must be features of one recipe, got .*resize=None.*resize=9.*; extract both"
    ):
        figures_of(one, other, fewest=2, kid_subset_size=20)


@pytest.mark.parametrize("missing", ["torch_fidelity", "torchvision"])
def test_without_the_extra_it_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, x = tmp_path / "w.pth", pictures(30, seed=1)
    torch.save({"layer": torch.zeros(2)}, path)
    for name in ("torch_fidelity", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else ModuleType(name))
    monkeypatch.setattr(module, "import_fidelity", import_fidelity.__wrapped__)
    with pytest.raises(ImportError, match=rf"need the extra `fid`, and {missing} is not installed; pip install 'lcg\["):
        inception_figures(x, x, path, **SMALL)


# --- refusals: images ---


def refused(images: Any, **options: Any) -> Any:
    return inception_figures(pictures(30, seed=1), images, "none.pth", **{**SMALL, **options})


def test_images_that_are_not_uint8_are_refused() -> None:
    x = pictures(30, seed=1) / 127.5 - 1
    with pytest.raises(
        TypeError, match=r"`reference` must be uint8 in 0..255, got torch.float32 with values in \[-1, 1"
    ):
        refused(x)
    with pytest.raises(
        TypeError, match=r"`reference` must be uint8 in 0..255, got torch.int64 with values in \[0, 9\]"
    ):
        refused(np.arange(10))
    x[3, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=rf"`reference` must be uint8 images without NaN, got 1 of {x.numel()} values"):
        refused(x)
    with pytest.raises(TypeError, match=r"`reference` must be uint8 images \(N, H, W, 3\) or a folder, got list"):
        refused([1, 2])


def test_images_of_another_shape_or_range_are_refused() -> None:
    x = pictures(30, seed=1)
    with pytest.raises(ValueError, match=r"must be \(N, H, W, 3\), got shape \(30, 3, 24, 24\); permute\(0, 2, 3, 1\)"):
        refused(x.permute(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"`reference` must be \(N, H, W, 3\), got shape \(24, 24, 3\)$"):
        refused(x[0])
    with pytest.raises(ValueError, match=r"`reference` must use the range 0..255, got no value above 1; multiply"):
        refused(x // 128)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`generated` must be at least 2049 images, got 30; take more, or lower `few"):
        refused(pictures(30, seed=2), layer="2048", fewest=None)
    with pytest.raises(
        ValueError, match=r"`reference` must be at least 20 images for kid_subset_size=20, splits=3 and n"
    ):
        refused(pictures(19, seed=2))
    with pytest.raises(ValueError, match=r"`reference` must be at least 2 images, got 0; take more"):
        refused(torch.zeros(0, 8, 8, 3, dtype=torch.uint8))


def test_folders_that_will_not_do_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`reference` must be a folder of images, .*/none is none"):
        refused(tmp_path / "none")
    with pytest.raises(ValueError, match=r"`reference` must hold .png, .jpg, .jpeg files, .* has none; subfolders"):
        refused(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 9)).save(tmp_path / "b.PNG")
    with pytest.raises(ValueError, match=r"images of one size, got 8x8 \(a.png\), 8x9 \(b.PNG\); pass `resize`"):
        refused(str(tmp_path))
    Image.new("RGBA", (8, 8)).save(tmp_path / "c.png")
    Image.new("I;16", (8, 8)).save(tmp_path / "d.png")
    with pytest.raises(
        ValueError, match=r"8-bit images without transparency, RGB, L, P, got c.png \(RGBA\), d.png \(I"
    ):
        refused(tmp_path, resize=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": 0}, "`resize` must be >= 1, got 0"),
        ({"kid_subsets": 0}, "`kid_subsets` must be >= 1, got 0"),
        ({"kid_subset_size": 1}, "`kid_subset_size` must be >= 2, got 1"),
        ({"splits": 0}, "`splits` must be >= 1, got 0"),
        ({"neighbours": 0}, "`neighbours` must be >= 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be >= 1, got 0"),
        ({"seed": -1}, "`seed` must be >= 0, got -1"),
        ({"seed": 2**32}, r"`seed` must be < 2\^32, got 4294967296"),
        ({"layer": "128"}, "`layer` must be '64', '192', '768' or '2048', got '128'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refused(pictures(30, seed=2), **options)
