"""The pipeline: networks that fit together, samples that depend on their seed alone, guidance as asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lcg
from lcg.data.avatars import AvatarSource
from lcg.diffusion import DDIM, DPMSolverPP2M
from lcg.generators.autoencoder import AvatarAutoencoder, PCAAutoencoder
from lcg.guidance import parse
from lcg.pipeline import Editing, Guidance, Pipeline, Sampling, load, load_networks

FAST: dict[str, Any] = {"sampling": Sampling(steps=6), "editing": Editing(steps=6)}


@pytest.fixture(scope="module")
def pipeline(demo) -> Pipeline:
    return lcg.load(demo.prior, demo.classifier, **FAST)


def test_generated_images_are_those_of_their_latents(pipeline: Pipeline) -> None:
    samples = pipeline.generate("glasses & ~beard", n=3, seed=5)
    assert samples.images.shape == (3, 64, 64, 3) and samples.images.dtype == np.uint8
    assert samples.seeds == (5, 6, 7) and samples.formula == parse("glasses & ~beard", pipeline.schema)
    assert np.array_equal(pipeline.decode(samples.z_0, batch_size=2), samples.images)
    assert pipeline.generate(n=1).formula is None


def test_a_sample_depends_on_its_seed_alone(pipeline: Pipeline) -> None:
    formula = parse("hat & smile", pipeline.schema)
    together = pipeline.sample(range(7), formula, batch_size=7)
    assert (pipeline.sample(range(7), formula, batch_size=3) - together).abs().max() < 1e-4
    assert (pipeline.sample([4], formula) - together[4]).abs().max() < 1e-4


def test_guidance_raises_what_it_asks_for(pipeline: Pipeline) -> None:
    """Not how well, which a tiny network cannot tell: the classifier's own log-probability rises."""
    formula, t = parse("hat", pipeline.schema), torch.full((16,), 0.02)
    free, guided = pipeline.sample(range(16)), pipeline.sample(range(16), formula)
    logit = [pipeline.classifier(z_0, t)["hat"].mean() for z_0 in (free, guided)]
    assert logit[1] > logit[0] + 0.5


def test_weight_zero_is_the_prior(demo) -> None:
    pipeline = load(demo.prior, demo.classifier, guidance=Guidance(single=0.0), **FAST)
    formula = parse("hat", pipeline.schema)
    assert torch.equal(pipeline.sample(range(4), formula), pipeline.sample(range(4)))


def test_the_weight_depends_on_how_much_is_asked(pipeline: Pipeline) -> None:
    guidance = Guidance(single=2.0, several=8.0)
    for text, weight in (("hat", 2.0), ("~hat", 2.0), ("hat & smile", 8.0), ("hat | smile", 8.0), ("smile^3.0", 1.0)):
        assert guidance.weight(parse(text, pipeline.schema)) == weight


def test_samplers_are_those_that_were_named(pipeline: Pipeline) -> None:
    for name, kind in (("ddim", DDIM), ("dpm++2m", DPMSolverPP2M)):
        sampler = Sampling(sampler=name, steps=7, t_start=0.9, clip=3.0).build(pipeline.denoiser)
        assert type(sampler) is kind and (sampler.steps, sampler.t_start, sampler.clip) == (7, 0.9, 3.0)


def test_edits_begin_with_the_reconstruction(pipeline: Pipeline) -> None:
    images = AvatarSource("uniform", 2, "pipeline").chunk(0, 2)[0]
    frames = pipeline.edit(images, "+glasses", "-hat")
    assert len(frames) == 3 and all(frame.shape == images.shape for frame in frames)
    assert np.array_equal(frames[0], pipeline.decode(pipeline.encode(images)))
    assert np.abs(frames[0].astype(float) - images).mean() < 8  # the shipped generator knows avatars


def test_encoding_does_not_depend_on_the_batch(pipeline: Pipeline) -> None:
    images = AvatarSource("uniform", 5, "pipeline").chunk(0, 5)[0]
    assert (pipeline.encode(images, batch_size=2) - pipeline.encode(images)).abs().max() < 1e-4


def test_wrong_images_latents_and_requests_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match=r"the images must be 64x64 with 3 channels, got \(32, 32, 3\); resize them"):
        pipeline.encode(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(TypeError, match="must be uint8"):
        pipeline.encode(np.zeros((1, 64, 64, 3), np.float32))
    with pytest.raises(ValueError, match="`z_0` must be finite, got NaN or infinity in row 1"):
        pipeline.decode(torch.tensor([[0.0] * 64, [torch.nan] * 64]))
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        pipeline.generate(n=0)
    with pytest.raises(ValueError, match="did you mean 'smile'"):
        pipeline.generate("smlie")
    with pytest.raises(ValueError, match="contradicts itself"):
        pipeline.generate("hat & ~hat")
    with pytest.raises(ValueError, match=r"`sampler` must be one of ddim, dpm\+\+2m, got 'euler'"):
        Sampling(sampler="euler")  # type: ignore[arg-type]


def altered(path: str, out: Path, schedule: str | None = None, **entries: Any) -> str:
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["lcg"].update(entries)
    if schedule is not None:
        checkpoint["lcg"]["config"]["schedule"] = schedule
    torch.save(checkpoint, out)
    return str(out)


def test_networks_that_do_not_fit_together_are_refused(demo, tmp_path: Path) -> None:
    other = altered(demo.classifier, tmp_path / "store.ckpt", store="0123456789abcdef")
    with pytest.raises(
        ValueError, match=r"were trained on different stores .* and 0123456789ab\); fit both on one store"
    ):
        load(demo.prior, other)
    with pytest.raises(ValueError, match="the prior's schedule is 'cosine', the classifier's 'linear'"):
        load_networks(demo.prior, altered(demo.classifier, tmp_path / "schedule.ckpt", schedule="linear"))


def test_another_generator_is_refused(demo, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trained on latents of shape \(64,\), the generator has \(8,\)"):
        load(demo.prior, demo.classifier, PCAAutoencoder(8, 16, 8, 1))
    with pytest.raises(ValueError, match=r"was encoded by a generator with weights .*, this one has"):
        load(demo.prior, demo.classifier, PCAAutoencoder(64, 16, 8, 1))
    unknown = altered(demo.prior, tmp_path / "unknown.ckpt", generator="")  # of a store that does not say
    assert load(unknown, demo.classifier, AvatarAutoencoder()).denoiser.latent_shape == (64,)
