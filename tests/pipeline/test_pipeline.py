"""The pipeline: networks that fit together, samples that depend on their seed alone, guidance as asked for."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lcg
from lcg.checkpoint import load_networks
from lcg.data.avatars import AvatarSource
from lcg.diffusion import DDIM, DDPM, Consistency, DPMSolverPP2M, Heun, UniPC, generators, randn
from lcg.editing import EditSession
from lcg.generators.autoencoder import AvatarAutoencoder, PCAAutoencoder
from lcg.generators.base import Generator, pixels_to_x
from lcg.guidance import GuidedConsistency, parse
from lcg.pipeline import Pipeline, load
from lcg.results.samples import Draw
from lcg.schema import Attribute, Schema
from lcg.settings import Editing, Guidance, Inverting, Sampling

FAST: dict[str, Any] = {"sampling": Sampling(steps=6), "editing": Editing(steps=6)}


@pytest.fixture(scope="module")
def pipeline(demo) -> Pipeline:
    return lcg.load(demo.prior, demo.classifier, **FAST)


@pytest.fixture(scope="module")
def avatars() -> np.ndarray:
    return AvatarSource("uniform", 3, "pipeline").chunk(0, 3)[0]


class Decoder(Generator):
    """The embedded generator's other half."""

    latent_shape, image_shape = (64,), (3, 64, 64)

    def __init__(self, whole: Generator) -> None:
        super().__init__()
        self.whole = whole

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.whole.decode(z)


class Refusing(Decoder):
    """One that learns only when it is asked that it has no encoder, as a wrapper may."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no encoder in this file")


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


def same(draw: Draw, alone: Draw) -> None:
    """Up to rounding."""
    assert (draw.warnings, draw.drawn, draw.log_p_formula) == (alone.warnings, alone.drawn, alone.log_p_formula)
    assert draw.plan == alone.plan and (draw.z_0 - alone.z_0).abs().max() < 1e-4


def test_several_weights_in_one_batch_are_as_each_alone(pipeline: Pipeline) -> None:
    """Weights 0 to 40: what the classifier rejects is drawn again, and the solver's order depends on the weight."""
    formula, seeds = parse("hat & smile", pipeline.schema), range(5)
    guidances = [
        Guidance(several=w, beyond=w, rise=r, attempts=3) for w, r in ((0.0, 1.0), (1.0, 4.0), (3.0, 0.5), (40.0, 1.0))
    ]
    pipelines = [replace(pipeline, guidance=guidance) for guidance in guidances]
    plans = [one.plan(formula) for one in pipelines]
    orders = {pipeline.sampling.build(pipeline.denoiser, plan.weight.largest).order for plan in plans}  # type: ignore
    assert orders == {1, 2}
    for draw, plan, one in zip(pipelines[0].draw_each(plans, seeds, 7), plans, pipelines, strict=True):
        assert draw.plan == plan
        same(draw, one.draw(seeds, formula))
    assert any(draw.drawn > len(seeds) for draw in pipelines[0].draw_each(plans, seeds))


@pytest.mark.parametrize("batch_size", [512, 7])
def test_several_formulas_and_weights_in_one_batch_are_as_each_alone(pipeline: Pipeline, batch_size: int) -> None:
    """Some read jointly and some not, of one attribute or several; failed rows are drawn again by their own formula."""
    formulas = [parse(text, pipeline.schema) for text in ("hat", "beard & ~smile", "hat & glasses^2.0", "top=bob")]
    several = [
        replace(pipeline, guidance=Guidance(single=w, several=w, beyond=w, dependence=d, attempts=3))
        for w, d in ((0.0, "joint"), (2.0, "independent"), (40.0, "joint"))
    ]
    asked, seeds = [(one, formula) for formula in formulas for one in several], range(3, 8)
    draws = several[0].draw_each([one.plan(formula) for one, formula in asked], seeds, batch_size)
    for draw, (one, formula) in zip(draws, asked, strict=True):
        same(draw, one.draw(seeds, formula))
    assert any(draw.drawn > len(seeds) for draw in draws)
    assert {draw.plan.dependence for draw in draws if draw.plan} == {"joint", "independent"}


def test_a_batch_is_never_of_more_rows_than_asked(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    whole = DPMSolverPP2M.sample
    monkeypatch.setattr(DPMSolverPP2M, "sample", lambda self, d, z, g: rows.append(len(z)) or whole(self, d, z, g))
    once = replace(pipeline, guidance=Guidance(attempts=1))
    pipeline.support(parse("hat", pipeline.schema))  # whose samples are not of interest here
    once.draw_each([once.plan(parse(text, pipeline.schema)) for text in ("hat", "glasses", "smile")], range(5), 4)
    assert rows == [4, 4, 4, 3]


def test_a_sweep_is_what_generate_makes_of_each(pipeline: Pipeline) -> None:
    swept = pipeline.sweep(["glasses & hat", "beard"], weights=[1, 6], n=3, seed=4)
    assert list(swept) == ["glasses & hat", "beard"] and all(len(row) == 2 for row in swept.values())
    for text, row in swept.items():
        for weight, samples in zip((1, 6), row, strict=True):
            guidance = replace(pipeline.guidance, single=weight, several=weight, beyond=weight)
            alone = replace(pipeline, guidance=guidance).generate(text, 3, 4)
            assert samples.seeds == alone.seeds and samples.formula == alone.formula
            same(samples.draw, alone.draw)
            assert np.abs(samples.images.astype(int) - alone.images).max() <= 1
    (own,) = pipeline.sweep(["hat"], n=2)["hat"]
    assert np.array_equal(own.images, pipeline.generate("hat", 2).images)


def test_sweeps_that_cannot_be_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="`formulas` and `weights` must not be empty, got 0 formulas and None; name"):
        pipeline.sweep([])
    with pytest.raises(ValueError, match=r"got 1 formulas and \[\]; name at least one of each, or leave `weights` out"):
        pipeline.sweep(["hat"], weights=[])
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        pipeline.sweep(["hat"], n=0)
    with pytest.raises(ValueError, match="contradicts itself"):
        pipeline.sweep(["hat", "hat & ~hat"])
    with pytest.raises(ValueError, match=r"must be without particles, got `guidance\.particles`=8; use `generate` for"):
        replace(pipeline, guidance=Guidance(particles=8)).sweep(["hat"])


def test_pipelines_with_other_settings_share_what_they_know_of_the_prior(pipeline: Pipeline) -> None:
    formula = parse("hat", pipeline.schema)
    pipeline.support(formula)
    probes = dict(pipeline.probes)
    other = replace(pipeline, guidance=Guidance(single=7.0))
    assert other.support(formula) == pipeline.support(formula) and other.probes == probes
    replace(pipeline, sampling=Sampling(steps=6, clip=1.0)).support(formula)
    assert len(pipeline.probes) == len(probes) + 1  # another bound, other samples


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
        ({"single": -1.0}, "`single` must be >= 0 and finite, got -1.0; to avoid something, negate it"),
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


# --- distilled priors -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def distilled(demo, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint that says so; its network is a prior's, which wiring cannot tell."""
    return altered(demo.prior, tmp_path_factory.mktemp("distilled") / "prior.ckpt", consistency=True)


def few(prior: str, classifier: str, steps: int, **guidance: Any) -> Pipeline:
    return load(prior, classifier, sampling=Sampling("consistency", steps), guidance=Guidance(**guidance))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_distilled_prior_samples_as_consistency_functions_do(demo, distilled: str, steps: int) -> None:
    pipeline = few(distilled, demo.classifier, steps)
    sampler = pipeline.sampling.build(pipeline.denoiser)
    assert type(sampler) is Consistency and len(sampler.times()) == steps and sampler.clip == 5.0
    assert sampler.times()[0] == 0.99  # where paths of distillation begin, not the solvers' 0.995
    rows = generators(range(3))
    wanted = Consistency(pipeline.denoiser.schedule, steps, clip=5.0).sample(
        pipeline.denoiser, randn((3, 64), rows), rows
    )
    assert (pipeline.sample(range(3)) - wanted).abs().max() < 1e-5


@pytest.mark.parametrize(("text", "weight"), [("hat", 2.0), ("hat & smile", 3.0), ("beard & long_hair", 3.0)])
def test_a_distilled_prior_is_guided_before_the_function(demo, distilled: str, text: str, weight: float) -> None:
    pipeline = few(distilled, demo.classifier, 2, attempts=1)
    formula, rows = parse(text, pipeline.schema), generators(range(3))
    plan = pipeline.plan(formula)
    assert plan.weight(torch.tensor([0.99, 0.79])).tolist() == [0.0, weight]
    term, schedule = pipeline.term(formula, plan.dependence), pipeline.denoiser.schedule
    led = GuidedConsistency(pipeline.denoiser, term, schedule, lambda t: torch.where(t > 0.95, 0.0, weight))
    wanted = Consistency(schedule, 2, clip=5.0).sample(led, randn((3, 64), rows), rows)
    found = pipeline.sample(range(3), formula)
    assert (found - wanted).abs().max() < 1e-4 and (found - pipeline.sample(range(3))).abs().max() > 0.1


def test_the_weight_of_few_evaluations_is_the_user_s_or_what_suits_their_number(pipeline: Pipeline) -> None:
    texts = ("hat", "hat & smile", "hat & smile", "hat^7.0")
    formulas = [parse(text, pipeline.schema) for text in texts]

    def weights(guidance: Guidance, steps: int) -> list[list[float]]:
        t = torch.tensor([0.99, 0.39])
        return [guidance.weight(f, k == 2, steps)(t).tolist() for k, f in enumerate(formulas)]

    assert weights(Guidance(), 1) == [[1, 1], [2, 2], [2, 2], [1, 1]]
    assert weights(Guidance(), 3) == [[0, 1.5], [0, 2], [0, 2], [0, 1]]
    assert weights(Guidance(single=4.0, several=5.0, beyond=0.0), 4) == [[0, 4], [0, 5], [0, 0], [0, 1]]
    usual = [Guidance().weight(f, k == 2).early for k, f in enumerate(formulas)]
    assert usual == [1.0, 3.0, 8.0, 1.0]  # of solvers


def test_plans_of_a_distilled_prior_drawn_together_are_as_each_alone(demo, distilled: str) -> None:
    pipeline = few(distilled, demo.classifier, 2, attempts=2)
    plans = [pipeline.plan(parse(text, pipeline.schema)) for text in ("hat", "smile")]
    for draw, plan in zip(pipeline.draw_each(plans, range(4)), plans, strict=True):
        same(draw, pipeline.draw(range(4), plan.formula))


def test_support_is_estimated_with_the_distilled_prior_s_own_sampler(demo, distilled: str) -> None:
    pipeline = few(distilled, demo.classifier, 2)
    own, rng = pipeline._probes(), torch.Generator().manual_seed(0)
    noise = randn((len(own), 64), rng)
    assert torch.equal(own, Consistency(pipeline.denoiser.schedule, 2, clip=5.0).sample(pipeline.denoiser, noise, rng))
    once = replace(pipeline, sampling=Sampling("consistency", 1))
    assert once.probes is pipeline.probes and not torch.equal(once._probes(), own)  # others for another number
    assert torch.equal(few(distilled, demo.classifier, 2)._probes(), own)


def test_a_distilled_prior_is_refused_where_a_denoiser_is_needed(demo, distilled: str, avatars: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"`sampling.sampler` consistency and nothing else, got 'dpm\+\+2m'; set it"):
        load(distilled, demo.classifier)
    for asked in ({"particles": 8}, {"max_step": 1.0}):
        with pytest.raises(ValueError, match=r"no particles and no trust region, got guidance\.particles=.*; leave"):
            few(distilled, demo.classifier, 2, **asked)
    with pytest.raises(ValueError, match=r"is a distilled prior, which can only generate, .* from: give that"):
        load_networks(distilled, demo.classifier)
    pipeline = few(distilled, demo.classifier, 2)
    z_0 = torch.zeros(3, 64)
    for edit in (
        pipeline.editor,
        lambda: pipeline.edit(avatars, "+hat"),
        lambda: pipeline.edit_latents(z_0, ["+hat"]),
        lambda: pipeline.session(z_0),
    ):
        with pytest.raises(ValueError, match="posterior mean, which a distilled prior does not know; load the prior"):
            edit()
    with pytest.raises(ValueError, match="nothing else, got 'ddim'"):
        replace(pipeline, sampling=Sampling("ddim"))


def test_an_ordinary_prior_is_refused_by_the_sampler_consistency(demo) -> None:
    with pytest.raises(ValueError, match="needs a distilled prior, got an ordinary one; distil it with `lcg fit"):
        few(demo.prior, demo.classifier, 2)


def test_few_evaluations_out_of_range_are_refused() -> None:
    for steps in (0, 5, 50):
        with pytest.raises(ValueError, match=f"of the sampler consistency must be 1 to 4, got {steps}; set 4"):
            Sampling("consistency", steps)
    for wrong in ({"t_start": 0.9}, {"t_end": 0.1}, {"spacing": "asinh"}):
        with pytest.raises(ValueError, match=r"the sampler consistency has its own times, got .*; leave them out"):
            Sampling("consistency", 4, **wrong)


# --- editing ----------------------------------------------------------------------------------------------------------


def test_strength_says_how_far_to_go(pipeline: Pipeline, avatars: np.ndarray) -> None:
    z_0 = pipeline.encode(avatars)
    far = [
        (pipeline.edit_latents(z_0, ["+hat"], strength=s)[0].z_0 - z_0).norm(dim=1).mean() for s in (0.0, 0.1, 0.5, 1.0)
    ]
    assert far == sorted(far) and far[0] == 0 and far[1] < 0.5 * far[-1]
    default = replace(pipeline, editing=replace(pipeline.editing, strength=0.5)).edit_latents(z_0, ["+hat"])[0].z_0
    assert torch.equal(default, pipeline.edit_latents(z_0, ["+hat"], strength=0.5)[0].z_0)
    frames = pipeline.edit(avatars, "+hat", "-glasses", strength=torch.tensor([0.0, 0.5, 1.0]))
    assert all(np.array_equal(frame[0], frames[0][0]) for frame in frames)
    assert not np.array_equal(frames[1][1], frames[0][1])
    with pytest.raises(ValueError, match=r"`strength` must be in \[0, 1\]"):
        pipeline.edit(avatars, "+hat", strength=1.5)


@pytest.mark.parametrize("start", ["inversion", "noising", "noise"])
def test_equal_requests_give_equal_results(pipeline: Pipeline, avatars: np.ndarray, start: Any) -> None:
    editing = Editing(steps=6, start=start, corrections=0 if start == "inversion" else 1)
    drawing, z_0 = replace(pipeline, editing=editing), pipeline.encode(avatars)
    first = drawing.edit_latents(z_0, ["+hat", "-glasses"])
    again = drawing.edit_latents(z_0, ["+hat", "-glasses"])
    assert all(torch.equal(one.z_0, other.z_0) for one, other in zip(first, again, strict=True))
    alone = drawing.edit_latents(z_0[:1], ["+hat", "-glasses"])[1].z_0
    assert (alone[0] - first[1].z_0[0]).abs().max() < 1e-4
    session = drawing.session(z_0).add("+hat").add("-glasses")
    assert all((one.z_0 - other).abs().max() < 1e-3 for one, other in zip(first, session.frames()[1:], strict=True))


def test_a_session_has_the_pipeline_s_editor(pipeline: Pipeline, avatars: np.ndarray, tmp_path: Path) -> None:
    session = pipeline.session(avatars).add("+hat").add("-glasses", 0.5)
    result = session.result()
    assert torch.equal(session.z_0, pipeline.encode(avatars)) and not torch.equal(result, session.z_0)
    assert torch.equal(session.result(pipeline.editor()), result)
    assert pipeline.decode(result).shape == avatars.shape
    labels = torch.full((3, len(pipeline.schema)), torch.nan)
    labels[:, 0] = 1.0
    of_latents = pipeline.session(session.z_0, labels, strength=0.3).add("-hat")
    assert torch.equal(of_latents.labels[:, 0], labels[:, 0]) and of_latents.strength == 0.3
    expected = pipeline.edit_latents(session.z_0, ["-hat"], labels, 0.3)[0].z_0
    assert torch.equal(of_latents.result(), expected)
    (tmp_path / "session.json").write_text(session.to_json())
    opened = pipeline.open_session(tmp_path / "session.json")
    assert opened.steps == session.steps and torch.equal(opened.result(), result)


def test_what_is_no_session_of_this_pipeline_is_refused(pipeline: Pipeline, tiny_store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"are latents of shape \(4,\), the prior's have \(64,\); use the networks"):
        pipeline.session(torch.zeros(2, 4))
    with pytest.raises(FileNotFoundError, match=r"no session at .*nothing\.json; `lcg edit` leaves one as OUT/session"):
        pipeline.open_session(tmp_path / "nothing.json")
    path = tmp_path / "session.json"
    path.write_bytes(b"\xff\xfe no text")
    with pytest.raises(ValueError, match=r"session\.json: a session must be JSON"):
        pipeline.open_session(path)
    path.write_text(EditSession(torch.zeros(2, 4), pipeline.schema).to_json())
    with pytest.raises(ValueError, match=r"session\.json: the sources are latents of shape \(4,\)"):
        pipeline.open_session(path)
    path.write_text(EditSession(torch.zeros(2, 64), Schema((Attribute("fur"),))).to_json())
    with pytest.raises(ValueError, match=r"session\.json: the session was made with other attributes"):
        pipeline.open_session(path)


# --- inversion --------------------------------------------------------------------------------------------------------


def error(pipeline: Pipeline, z_0: torch.Tensor, images: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        x_hat = pipeline.generator.decode(pipeline.statistics.restore(z_0))
    return ((x_hat - pixels_to_x(torch.from_numpy(images))) / 2).square().flatten(1).mean(1).sqrt()


def test_images_are_inverted_by_the_encoder_unless_asked_otherwise(pipeline: Pipeline, avatars: np.ndarray) -> None:
    encoded, both = pipeline.encode(avatars), Inverting(how="both", steps=20, lr=0.05)
    inverted, refined = pipeline.invert(avatars), pipeline.invert(avatars, both)
    assert torch.equal(pipeline.statistics.standardise(inverted.z), encoded) and inverted.steps.tolist() == [0, 0, 0]
    assert (error(pipeline, encoded, avatars) - inverted.error).abs().max() < 1e-5
    assert (refined.error < inverted.error).all() and refined.steps.tolist() == [20, 20, 20]
    z_0 = pipeline.statistics.standardise(refined.z)
    assert torch.equal(pipeline.encode(avatars, inversion=both), z_0)
    assert torch.equal(replace(pipeline, inversion=both).encode(avatars), z_0)
    assert torch.equal(replace(pipeline, inversion=both).session(avatars).z_0, z_0)


@pytest.mark.parametrize("kind", [Decoder, Refusing])
def test_a_generator_without_an_encoder_is_descended(pipeline: Pipeline, avatars: np.ndarray, kind: Any) -> None:
    alone = replace(pipeline, generator=kind(pipeline.generator), inversion=Inverting(steps=20, noise=0.0))
    inverted = alone.invert(avatars[:2])
    assert inverted.steps.tolist() == [20, 20]
    z_0 = alone.encode(avatars[:2])
    assert torch.equal(z_0, pipeline.statistics.standardise(inverted.z))
    assert (error(pipeline, z_0, avatars[:2]) < error(pipeline, torch.zeros(2, 64), avatars[:2])).all()
    for how in ("encoder", "both"):
        with pytest.raises(NotImplementedError, match=f"has no encoder, which `how`='{how}' asks for; use how='opti"):
            alone.encode(avatars, inversion=Inverting(how=how))


def test_what_a_generator_lacks_is_known_before_work(pipeline: Pipeline) -> None:
    decoder = Decoder(pipeline.generator)
    for how in ("encoder", "both"):
        with pytest.raises(NotImplementedError, match=f"Decoder has no encoder, which `how`='{how}' asks for; use"):
            Inverting(how=how).check(decoder)
        Inverting(how=how).check(pipeline.generator)
    for how, generator in (("auto", decoder), ("optimise", decoder), ("both", pipeline.generator)):
        with pytest.raises(NotImplementedError, match="has no prior of its own, which `candidates`=9 asks for; use 0"):
            Inverting(how=how, candidates=9).check(generator)
        Inverting(how=how).check(generator)
    Inverting(candidates=9).check(pipeline.generator)  # the encoder answers; candidates play no part


def test_inversion_out_of_range_is_refused() -> None:
    for wrong, message in (
        ({"how": "encode"}, "unknown how 'encode'; did you mean 'encoder'"),
        ({"candidates": -1}, "`candidates` must be >= 0, got -1; 0 starts at the mean latent"),
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"patience": 0}, "`patience` must be at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"lr": 0.0}, "`lr` must be finite and > 0, got 0.0"),
        ({"gain": 1.0}, r"`gain` must be in \[0, 1\), got 1.0"),
        ({"prior_weight": -1.0}, "`prior_weight` must be finite and >= 0, got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            Inverting(**wrong)


# --- refusals ---------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=r"`sampler` must be one of ddpm, .* unipc, consistency, got 'euler'"):
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


def test_a_prior_serves_classifiers_of_the_same_latents_with_other_labels(demo, tmp_path: Path) -> None:
    """And of no others, whatever a stranger's file says there."""
    mine = load_networks(*demo.networks[1::2])[0].store
    relabelled = {"relabelled": {"store": mine}}
    other = altered(demo.classifier, tmp_path / "labels.ckpt", store="0123456789abcdef", provenance=relabelled)
    assert load(demo.prior, other).store == "0123456789abcdef"
    for said in ({"store": "another"}, 3):
        wrong = altered(demo.classifier, tmp_path / "w.ckpt", store="01234", provenance={"relabelled": said})
        with pytest.raises(ValueError, match="were trained on different stores"):
            load(demo.prior, wrong)


def test_another_generator_is_refused(demo, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trained on latents of shape \(64,\), the generator has \(8,\)"):
        load(demo.prior, demo.classifier, PCAAutoencoder(8, 16, 8, 1))
    with pytest.raises(ValueError, match=r"was encoded by a generator with weights .*, this one has"):
        load(demo.prior, demo.classifier, PCAAutoencoder(64, 16, 8, 1))
    unknown = altered(demo.prior, tmp_path / "unknown.ckpt", generator="")  # of a store that does not say
    assert load(unknown, demo.classifier, AvatarAutoencoder()).denoiser.latent_shape == (64,)
