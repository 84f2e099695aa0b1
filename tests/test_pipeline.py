"""The pipeline: networks that fit together, samples that depend on their seed alone, guidance as asked for."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lcg
from lcg.data.avatars import AvatarSource
from lcg.diffusion import DDIM, DDPM, DPMSolverPP2M, Heun, UniPC
from lcg.generators.autoencoder import AvatarAutoencoder, PCAAutoencoder
from lcg.guidance import parse
from lcg.pipeline import Pipeline, load, load_networks
from lcg.settings import Editing, Guidance, Sampling

FAST: dict[str, Any] = {"sampling": Sampling(steps=6), "editing": Editing(steps=6)}


@pytest.fixture(scope="module")
def pipeline(demo) -> Pipeline:
    return lcg.load(demo.prior, demo.classifier, **FAST)


def test_generated_images_are_those_of_their_latents(pipeline: Pipeline) -> None:
    samples = pipeline.generate("glasses & ~beard", n=3, seed=5)
    assert samples.images.shape == (3, 64, 64, 3) and samples.images.dtype == np.uint8
    assert samples.seeds == (5, 6, 7) and samples.formula == parse("glasses & ~beard", pipeline.schema)
    again = pipeline.decode(samples.z_0, batch_size=2)  # in other batches a last digit may round the other way
    assert np.abs(again.astype(int) - samples.images).max() <= 1
    assert pipeline.generate(n=1).formula is None


def test_a_sample_depends_on_its_seed_alone(pipeline: Pipeline) -> None:
    formula = parse("hat & smile", pipeline.schema)
    together = pipeline.sample(range(7), formula, batch_size=7)
    assert (pipeline.sample(range(7), formula, batch_size=3) - together).abs().max() < 1e-4
    assert (pipeline.sample([4], formula) - together[4]).abs().max() < 1e-4


def test_guidance_raises_what_it_asks_for(pipeline: Pipeline) -> None:
    """Not how well, which a tiny network cannot tell: the classifier's own log-probability rises."""
    formula = parse("hat", pipeline.schema)
    free, guided = pipeline.sample(range(16)), pipeline.sample(range(16), formula)
    before, after = (pipeline.log_probability(formula, z_0).mean() for z_0 in (free, guided))
    assert after > before + 0.3


def test_weight_zero_is_the_prior(demo) -> None:
    pipeline = load(demo.prior, demo.classifier, guidance=Guidance(single=0.0, attempts=1), **FAST)
    formula = parse("hat", pipeline.schema)
    assert torch.equal(pipeline.sample(range(4), formula), pipeline.sample(range(4)))


def test_the_weight_depends_on_how_much_is_asked(pipeline: Pipeline) -> None:
    guidance = Guidance(single=1.5, several=2.0, beyond=8.0, rise=3.0, late=0.4)
    for text, early in (("hat", 1.5), ("~hat", 1.5), ("hat & smile", 2.0), ("hat | smile", 2.0)):
        weight = guidance.weight(parse(text, pipeline.schema))
        assert weight(torch.tensor([0.9, 0.4, 0.39])).tolist() == pytest.approx([early, early, 3 * early])
    assert guidance.weight(parse("hat & smile", pipeline.schema), extrapolate=True).largest == 24.0
    explicit = guidance.weight(parse("smile^3.0", pipeline.schema))
    assert explicit.largest == 1.0 and explicit(torch.tensor([0.1])).tolist() == [1.0]
    assert replace(guidance, particles=8).weight(parse("hat", pipeline.schema)).largest == 1.0


def test_guidance_out_of_range_is_refused() -> None:
    for wrong, message in (
        ({"dependence": "jiont"}, "unknown dependence 'jiont'; did you mean 'joint'"),
        ({"extrapolate": "allways"}, "unknown extrapolate 'allways'; did you mean 'always'"),
        ({"single": -1.0}, "`single` must be >= 0, got -1.0; to avoid something, negate it"),
        ({"rise": -1.0}, r"`rise` must be >= 0 and `late` in \[0, 1\], got -1.0 and 0.6; rise=1 keeps"),
        ({"max_step": 0.0}, "`max_step` must be > 0, got 0.0; None is no bound"),
        ({"attempts": 0}, "`attempts` must be at least 1, got 0; 1 accepts every sample"),
        ({"particles": 1}, "`particles` must be 0 or at least 2, got 1; 32 is usual, 0 is none"),
    ):
        with pytest.raises(ValueError, match=message):
            Guidance(**wrong)


def test_a_combination_that_was_never_seen_is_extrapolated_unless_that_is_forbidden(demo) -> None:
    never, seen = "beard & long_hair", "beard & hat"
    for extrapolate, expected in (("auto", (True, False)), ("always", (True, True)), ("never", (False, False))):
        pipeline = load(demo.prior, demo.classifier, guidance=Guidance(extrapolate=extrapolate), **FAST)
        pipeline = replace(pipeline, labels=pipeline.labels.repeat(10, 1))  # enough of them to decide
        plans = [pipeline.plan(parse(text, pipeline.schema)) for text in (never, seen)]
        assert tuple(plan.extrapolate for plan in plans) == expected
        assert plans[0].support.satisfying == 0 and plans[0].support.beyond and not plans[1].support.beyond
        assert [plan.dependence for plan in plans if plan.extrapolate] == ["independent"] * sum(expected)
        draw = pipeline.draw(range(3), parse(never, pipeline.schema))
        assert "beyond the prior's support (0 of 6000 labelled latents satisfy it" in draw.warnings[0]


@pytest.mark.parametrize("extrapolate", ["always", "never"])
def test_samples_are_drawn_again_until_the_classifier_is_content(demo, extrapolate: Any) -> None:
    drawn = {}
    for attempts in (1, 6):
        guidance = Guidance(extrapolate=extrapolate, attempts=attempts, single=0.0, beyond=0.0)
        pipeline = load(demo.prior, demo.classifier, guidance=guidance, **FAST)
        formula = parse("hat", pipeline.schema)
        drawn[attempts] = pipeline.draw(range(24), formula)
    once, often = (pipeline.log_probability(formula, drawn[a].z_0) > math.log(0.5) for a in (1, 6))
    assert 0 < int(once.sum()) < 24 and once.sum() < often.sum()
    kept = (drawn[1].z_0 == drawn[6].z_0).all(1)
    assert kept[once].all()  # whoever was content with the first draw keeps it
    alone = pipeline.draw([17], formula).z_0
    assert (alone[0] - drawn[6].z_0[17]).abs().max() < 1e-4


def test_particles_say_how_far_to_trust_them(demo) -> None:
    pipeline = load(demo.prior, demo.classifier, guidance=Guidance(particles=8), **FAST)
    formula = parse("hat", pipeline.schema)
    draw = pipeline.draw(range(16), formula)
    assert draw.z_0.shape == (16, 64) and 1 / 8 <= draw.ess <= 1
    assert abs(draw.log_p_formula - math.log(pipeline.support(formula).p)) < 1.0 and draw.stderr > 0
    assert torch.equal(pipeline.draw(range(16), formula).z_0, draw.z_0)


def test_formulas_that_say_nothing_are_refused_before_work(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="which always holds or has no weight; sample without a formula instead"):
        pipeline.generate("hat | ~hat")
    with pytest.raises(ValueError, match="which contradicts itself"):
        pipeline.generate("hat & ~hat")


def test_samplers_are_those_that_were_named(pipeline: Pipeline) -> None:
    names = {"ddpm": DDPM, "ddim": DDIM, "heun": Heun, "dpm++2m": DPMSolverPP2M, "unipc": UniPC}
    for name, kind in names.items():
        sampler = Sampling(name, steps=7, t_start=0.9, t_end=0.01, spacing="log_snr", clip=3.0).build(pipeline.denoiser)
        assert type(sampler) is kind and (sampler.steps, sampler.t_start, sampler.t_end) == (7, 0.9, 0.01)
        assert (sampler.spacing, sampler.clip) == ("log_snr", 3.0)


def test_few_steps_under_strong_guidance_are_of_first_order(pipeline: Pipeline) -> None:
    for name in ("dpm++2m", "unipc"):
        orders = [Sampling(name, steps=6).build(pipeline.denoiser, weight).order for weight in (1.0, 32.0)]
        assert orders == [2, 1]
    assert Sampling(steps=50).build(pipeline.denoiser, 32.0).order == 2


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
    with pytest.raises(ValueError, match=r"`sampler` must be one of ddpm, ddim, heun, dpm\+\+2m, unipc, got 'euler'"):
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
