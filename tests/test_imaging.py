"""Codes of images on their way through edits, sessions, files and benchmark, by a generator that has them exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

import lcg
from lcg import cli
from lcg.benchmarks.cache import Cache
from lcg.benchmarks.evaluator import Evaluator, Sources
from lcg.benchmarks.tasks import Edit, parse_task
from lcg.benchmarks.worlds.avatars import AvatarWorld
from lcg.data.avatars import SCHEMA, AvatarSource
from lcg.editing import EditSession
from lcg.generators.autoencoder import AvatarAutoencoder
from lcg.generators.base import StochasticGenerator, pixels_to_x, weights_sha256
from lcg.guidance import parse
from lcg.metrics.judge import AvatarJudge
from lcg.pipeline import Pipeline
from lcg.settings import Editing, Sampling

HERE = "tests.test_imaging.WithRest"


class WithRest(AvatarAutoencoder, StochasticGenerator):
    """The embedded generator, whose code is what its reconstruction lacks: with it every image comes back."""

    code_shape = (3, 64, 64)

    def decode(self, z: Tensor, code: Tensor | None = None) -> Tensor:
        x = super().decode(z)
        return x if code is None else (x + code).clamp(-1, 1)

    def stochastic_code(self, x: Tensor, z: Tensor) -> Tensor:
        return x - super().decode(z)


@pytest.fixture(scope="module")
def pipeline(demo) -> Pipeline:
    return lcg.load(demo.prior, demo.classifier, WithRest(), sampling=Sampling(steps=6), editing=Editing(steps=6))


@pytest.fixture(scope="module")
def avatars() -> NDArray[np.uint8]:
    return AvatarSource("uniform", 3, "imaging").chunk(0, 3)[0]


def test_an_edit_of_an_image_keeps_its_code(pipeline: Pipeline, avatars: NDArray[np.uint8]) -> None:
    reconstructed, edited = pipeline.edit(avatars, "+hat")
    assert np.array_equal(reconstructed, avatars)
    z_0 = pipeline.encode(avatars)
    result = pipeline.edit_latents(z_0, ["+hat"])[-1]
    assert np.array_equal(edited, pipeline.decode(result.z_0, code=pipeline.code(avatars, z_0)))
    assert not np.array_equal(edited, pipeline.decode(result.z_0)) and not np.array_equal(edited, avatars)


def test_what_has_no_source_is_decoded_as_ever(pipeline: Pipeline, demo, avatars: NDArray[np.uint8]) -> None:
    plain = lcg.load(demo.prior, demo.classifier, sampling=Sampling(steps=6), editing=Editing(steps=6))
    assert np.array_equal(pipeline.generate("hat", n=2).images, plain.generate("hat", n=2).images)
    assert plain.code(avatars, plain.encode(avatars)) is None and plain.invert(avatars).code is None


def test_codes_do_not_depend_on_how_images_are_batched(pipeline: Pipeline, avatars: NDArray[np.uint8]) -> None:
    z_0 = pipeline.encode(avatars)
    code = pipeline.code(avatars, z_0)
    assert code is not None and code.shape == (3, 3, 64, 64)
    together, parts = pipeline.decode(z_0, code=code), pipeline.decode(z_0, batch_size=2, code=code)
    assert np.abs(together.astype(int) - parts).max() <= 1
    torch.testing.assert_close(pipeline.code(avatars[1:], z_0[1:]), code[1:], rtol=0, atol=1e-4)


def test_an_inversion_is_judged_with_the_code(pipeline: Pipeline, avatars: NDArray[np.uint8]) -> None:
    inverted = pipeline.invert(avatars)
    assert inverted.code is not None and float(inverted.error.max()) < 1e-6
    x = pixels_to_x(torch.from_numpy(avatars))
    torch.testing.assert_close(inverted.code, pipeline.generator.stochastic_code(x, inverted.z), rtol=0, atol=1e-5)


def test_codes_that_do_not_fit_are_refused(pipeline: Pipeline, demo, avatars: NDArray[np.uint8]) -> None:
    z_0 = pipeline.encode(avatars)
    with pytest.raises(ValueError, match="`code` must have a row for each of 3 latents, got 2; give the sources' own"):
        pipeline.decode(z_0, code=torch.zeros(2, 3, 64, 64))
    plain = lcg.load(demo.prior, demo.classifier)
    with pytest.raises(ValueError, match="`code` must be None for AvatarAutoencoder, whose latents hold all"):
        plain.decode(z_0, code=torch.zeros(3, 3, 64, 64))
    for code in (torch.zeros(2, 4), torch.full((3, 4), torch.nan)):
        with pytest.raises(ValueError, match="`code` must be finite, a row for each of 3 sources"):
            EditSession(z_0, pipeline.schema, code=code)


def test_a_session_and_its_file_keep_the_code(pipeline: Pipeline, avatars: NDArray[np.uint8], tmp_path: Path) -> None:
    session = pipeline.session(avatars).add("+hat")
    assert session.code is not None
    (tmp_path / "session.json").write_text(session.to_json())
    again = pipeline.open_session(tmp_path / "session.json")
    assert again.code is not None and torch.equal(again.code, session.code)
    z_0 = pipeline.encode(avatars)
    code = pipeline.code(avatars, z_0)
    own = pipeline.session(z_0, code=code)
    assert own.code is not None and code is not None and torch.equal(own.code, code)
    assert "code" not in json.loads(pipeline.session(z_0).to_json())


def test_the_edit_command_keeps_the_code_also_from_a_session(demo, avatars: NDArray[np.uint8], tmp_path: Path) -> None:
    files = [str(tmp_path / f"{i}.png") for i in range(3)]
    for image, file in zip(avatars, files, strict=True):
        Image.fromarray(image).save(file)
    options = (*demo.networks, "--generator", HERE, "--editing.steps", "6", "--device", "cpu", "--strengths", "[0, 1]")
    first, second = tmp_path / "first", tmp_path / "second"
    assert cli.main(["edit", *options, "--source", *files, "--edits", "+hat", "--out", str(first)]) == 0
    assert cli.main(["edit", *options, "--session", str(first / "session.json"), "--out", str(second)]) == 0
    for row, image in enumerate(avatars):
        assert np.array_equal(read(first, row, 1), image)  # 0 is the source, 1 the reconstruction
        assert np.array_equal(read(second, row, 0), image) and np.array_equal(read(second, row, 1), read(first, row, 2))
    told = json.loads((first / "provenance.json").read_text())["inversion"]
    assert max(told["reconstruction_error"]) < 1e-6
    assert load_file(first / "latents.safetensors")["code"].shape == (3, 3, 64, 64)
    assert (first / "slider.png").read_bytes() == (second / "slider.png").read_bytes()


def read(folder: Path, row: int, step: int) -> NDArray[np.uint8]:
    (file,) = (folder / "images").glob(f"*{row}_{step}.png")
    return np.asarray(Image.open(file))


def test_the_benchmark_decodes_edits_with_the_codes_of_their_sources(pipeline: Pipeline, tmp_path: Path) -> None:
    marginals = {"hat": 0.35}
    world = AvatarWorld()
    evaluator = Evaluator(pipeline, AvatarJudge(), world, marginals, 160, 64, Cache(tmp_path, {}))
    task, anybody = parse_task("edit/+hat", SCHEMA), parse("hat | ~hat & ~glasses", SCHEMA)
    assert isinstance(task, Edit)
    for sources in (evaluator.originals("some", 5), evaluator.sources(task, anybody, "sources-0", 5)):
        assert sources.code is not None
        images = pipeline.decode(sources.z_0[1:3], code=sources[1:3].code)
        assert np.array_equal(images, sources.images[1:3].numpy())
    again = Evaluator(pipeline, AvatarJudge(), world, marginals, 160, 64, Cache(tmp_path, {})).originals("some", 5)
    assert isinstance(again, Sources) and again.code is not None  # from the file, too
    synthetic = parse_task("synthetic/+hat", SCHEMA)
    assert isinstance(synthetic, Edit)
    found = evaluator.sources(synthetic, anybody, "sources-0", 2)
    assert found.code is None and np.array_equal(found.images.numpy(), pipeline.decode(found.z_0))


def test_the_generator_of_these_tests_is_the_embedded_one_by_its_weights() -> None:
    assert weights_sha256(WithRest()) == weights_sha256(AvatarAutoencoder())
