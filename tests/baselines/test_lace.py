"""LACE: its equation, its logic and its preservation as they are written, and closed forms of where they lead."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.baselines.lace import AT_ONCE, LACE, atom_energy, either, langevin, negated, slope
from lcg.diffusion import generators
from lcg.editing.contract import EditRequest
from lcg.guidance import Atom, Formula, parse, parse_edit
from lcg.guidance.terms import gradient
from lcg.nets.heads import predict_labels
from lcg.nets.latent_classifier import LatentClassifier
from lcg.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute("glasses"),
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red", "black"), applies_if={"hat": False}),
        Attribute("age", "continuous"),
    )
)
TIME = 0.5 * (0.1 * (1 - 1e-3) + 19.9 * (1 - 1e-6) / 2)  # the integral of beta/2 from 1e-3 to 1


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def formula(text: str) -> Formula:
    return parse(text, SCHEMA)


def request(*edits: str, strength: float | Tensor | None = None) -> EditRequest:
    return EditRequest(tuple(parse_edit(edit, SCHEMA) for edit in edits), strength=strength)


def classifier(hidden: tuple[int, ...] = ()) -> LatentClassifier:
    """Linear without hidden layers: hat is read off z_1, glasses off 2 z_0 + z_1 - 0.5, hair off all, age off z_3."""
    torch.manual_seed(0)
    network = LatentClassifier((4,), SCHEMA, hidden)
    if not hidden:
        (layer,) = network.layers
        layer.weight.data.zero_()
        layer.bias.data.zero_()
        layer.weight.data[0, :2, 0] = torch.tensor([2.0, 1.0])
        layer.bias.data[0, 0, 0] = -0.5
        layer.weight.data[1, 1, 0] = 3.0
        layer.weight.data[2] = torch.randn(4, 3)
        layer.weight.data[3, 3, 0] = 0.5
    return network


@pytest.fixture
def lace(small, save, tmp_path: Path):
    """LACE on linear classifiers, or on others, in float64."""

    def make(hidden: tuple[int, ...] = (), **options: Any) -> LACE:
        path = save(classifier(hidden), tmp_path / "lace.ckpt")
        fitted = LACE(path, **options).fit(small.training(schema=SCHEMA))
        fitted.classifier.double()
        return fitted

    return make


# --- energies ---


def test_or_and_not_are_as_published() -> None:
    a, b = torch.linspace(-9, 2, 8, dtype=torch.float64), torch.linspace(1, -5, 8, dtype=torch.float64)
    torch.testing.assert_close(either(a, b), (20 * a.exp() + b.exp()).log(), rtol=1e-12, atol=1e-12)
    assert (either(a, b) - either(b, a)).abs().min() > 0.01  # not symmetric
    big = torch.tensor([800.0, -800.0])
    torch.testing.assert_close(either(big, -big), torch.tensor([800.0 + math.log(20), 800.0]))  # and stable

    log_p = torch.tensor([-5.0, -0.1, -0.05, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    energy = negated(log_p)
    torch.testing.assert_close(energy, -torch.tensor([-0.1, -0.1, -0.05, 0.0, 0.1], dtype=torch.float64))
    (slope,) = torch.autograd.grad(energy.sum(), log_p)  # the factor is not differentiated
    torch.testing.assert_close(slope, -torch.tensor([0.02, 1.0, 1.0, 1.0, 0.05], dtype=torch.float64))


def test_energies_of_atoms_are_log_probabilities(lace) -> None:
    outputs = lace((5,)).classifier(normal(6, 4))
    hair, age = outputs["hair"].log_softmax(1), outputs["age"][:, 0]
    phi = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    for text, expected in (
        ("glasses", outputs["glasses"].sigmoid().log()),
        ("hair=red", hair[:, 1]),
        ("hair in {red, black}", hair[:, 1:].exp().sum(1).log()),
        ("age>0.1", phi.cdf((age - 0.1) / 0.1).log()),
        ("age<0.1", phi.cdf((0.1 - age) / 0.1).log()),
    ):
        atom = formula(text)
        for holds in (True, False):
            found = atom_energy(atom, holds, outputs[atom.name], 0.1)
            torch.testing.assert_close(found, expected if holds else (1 - expected.exp()).log(), rtol=1e-7, atol=1e-9)


def test_sharpness_is_the_inverse_of_their_temperature(lace) -> None:
    """E = f_y / T - log sum exp f, with two logits for a binary attribute; a threshold's is multiplied."""
    outputs, T = lace((5,)).classifier(normal(6, 4)), 0.4
    u, hair = outputs["glasses"], outputs["hair"]
    both = torch.stack((-u / 2, u / 2), 1)
    for text, expected in (
        ("glasses", both[:, 1] / T - both.logsumexp(1)),
        ("hair=red", hair[:, 1] / T - hair.logsumexp(1)),
        ("age>0.1", torch.special.log_ndtr((outputs["age"][:, 0] - 0.1) / 0.1) / T),
    ):
        atom = formula(text)
        torch.testing.assert_close(atom_energy(atom, True, outputs[atom.name], 0.1, 1 / T), expected)
    # Where a cross-entropy has nothing left to climb, it still has a slope.
    far = torch.tensor([60.0], dtype=torch.float64, requires_grad=True)
    for sharpness, expected in ((1.0, 0.0), (3.0, 1.0)):
        (grad,) = torch.autograd.grad(atom_energy(formula("glasses"), True, far, 0.1, sharpness).sum(), far)
        assert float(grad) == pytest.approx(expected, abs=1e-9)


def test_formulas_are_composed_by_its_logic(lace) -> None:
    value, energy = lace((5,)), lace((5,), negation="energy")
    outputs = value.classifier(normal(6, 4))

    def E(text: str) -> Tensor:
        return value.energy(formula(text), outputs)

    def same(text: str, expected: Tensor, by: LACE = value) -> None:
        torch.testing.assert_close(by.energy(formula(text), outputs), expected, rtol=1e-12, atol=1e-12)

    g, h, r = E("glasses"), E("hat"), E("hair=red")
    same("glasses & hat & hair=red", g + h + r)
    same("glasses | hat | hair=red", either(either(g, h), r))
    same("~(glasses & hat)", negated(g + h))
    same("~~glasses", g)
    same("~~(glasses | hat)", either(g, h))
    same("glasses & ~(hat | hair=red)", g + negated(either(h, r)))
    same("~hat", (1 - h.exp()).log())
    same("~hat", negated(h), energy)
    weighted = value.condition(formula("glasses^2.0 & hat^0.5").conjuncts, outputs, torch.full((6,), 0.7).double())
    torch.testing.assert_close(weighted, 0.7 * (2 * g + 0.5 * h))
    assert value.can_generate(formula("~(glasses & hat) | hair=red"))


def test_preservation_and_its_gradient(lace) -> None:
    """By hand, of linear classifiers: -4 * 0.04 (z - z_src) - 2 * 0.01 sum_j W_j^T W_j (z - z_src)."""
    method, z, z_src = lace(), normal(6, 4), normal(6, 4, seed=1)
    W = method.classifier.layers[0].weight.data
    names = ["hat", "hair", "age"]

    def preservation(z: Tensor) -> Tensor:
        now, before = (method.kept(method.classifier(x), names) for x in (z, z_src))
        return method.preservation(z - z_src, now - before)

    d = z - z_src
    used = torch.cat((W[1, :, :1], W[2], W[3, :, :1]), dim=1)  # of age the mean alone
    expected = -0.04 * 2 * d.square().sum(1) - 0.01 * (d @ used).square().sum(1)
    torch.testing.assert_close(preservation(z), expected)
    torch.testing.assert_close(gradient(preservation, z), -0.16 * d - 0.02 * d @ used @ used.T)
    assert preservation(z_src).abs().max() == 0


# --- the samplers ---


def test_the_velocity_is_its_equation(lace) -> None:
    method, z = lace((5,)), normal(6, 4)
    t = torch.linspace(0, 1, 6, dtype=torch.float64)

    rows = torch.arange(6)

    def energy(z: Tensor, rows: Tensor) -> Tensor:
        return method.energy(formula("glasses & hair=red"), method.classifier(z))

    leaf = z.clone().requires_grad_()
    (grad,) = torch.autograd.grad(energy(leaf, rows).sum(), leaf)
    expected = -(0.1 + 19.9 * t)[:, None] / 2 * grad
    torch.testing.assert_close(method.velocity(energy, z, t, rows), expected, rtol=1e-12, atol=1e-12)


def test_a_slope_is_the_gradient_however_many_rows_are_asked(lace) -> None:
    """Rows keep their place in the batch, and those that are asked may be any."""
    method, rows = lace((5,)), torch.arange(2 * AT_ONCE + 3).flip(0)
    weight, z = torch.arange(len(rows), dtype=torch.float64), normal(len(rows), 4)

    def energy(z: Tensor, rows: Tensor) -> Tensor:
        return weight[rows] * method.energy(formula("glasses & hair=red"), method.classifier(z))

    torch.testing.assert_close(slope(energy, z, rows), gradient(lambda z: energy(z, rows), z), rtol=1e-9, atol=1e-12)
    z[AT_ONCE + 1, 2] = torch.nan
    with pytest.raises(ValueError, match=f"must be finite, got NaN or infinity in row {AT_ONCE + 1}; check that"):
        slope(energy, z, rows)


def test_a_logistic_energy_has_a_closed_form(lace) -> None:
    """u = w.z + b climbs log sigmoid(u): u' = |w|^2 / (1 + e^u), so that u + e^u grows by |w|^2 times the time."""
    method = lace(tolerance=1e-8)
    z_0, strength = normal(32, 4), torch.linspace(0.2, 1, 32, dtype=torch.float64)
    for free in (lace(tolerance=1e-8, keep_latent=0.0, keep_logits=0.0), method):
        free.keep_latent = free.keep_logits = 0.0
        z = free.edit(z_0, request("+glasses", strength=strength)).z_0
        before, after = (free.classifier(x)["glasses"] for x in (z_0, z))
        grown = after + after.exp() - before - before.exp()
        torch.testing.assert_close(grown, strength * 5 * TIME, rtol=1e-5, atol=1e-5)
        assert (z - z_0)[:, 2:].abs().max() < 1e-12  # along w only
        torch.testing.assert_close((z - z_0)[:, 0], 2 * (z - z_0)[:, 1])


def test_langevin_has_the_stationary_distribution_of_its_steps() -> None:
    """z' = (1 - h k) z + s xi is N(0, s^2 / (1 - (1 - h k)^2)) in the end, and on the way there known, too."""
    h, s, k, steps = 0.1, 0.3, torch.tensor([0.5, 4.0], dtype=torch.float64), 60
    rng, z = torch.Generator().manual_seed(0), torch.full((20_000, 2), 2.0, dtype=torch.float64)

    def draw() -> Tensor:
        return torch.randn(z.shape, dtype=z.dtype, generator=rng)

    end = langevin(lambda z: -k * z, z, steps, h, s, draw)
    left = (1 - h * k) ** steps
    variance = s**2 * (1 - left**2) / (1 - (1 - h * k) ** 2)
    assert (end.mean(0) - 2 * left).abs().max() < 0.03
    assert (end.var(0) / variance - 1).abs().max() < 0.03


def test_langevin_without_a_condition_shrinks_to_a_cold_prior(lace) -> None:
    """The authors' 100 steps at lr = std = 0.01, from N(0, I) under -|z|^2 / 2, at a temperature of 0.005."""
    method = lace(sampler="langevin")
    z = method.generate(formula("glasses"), normal(4000, 4), torch.Generator().manual_seed(0), strength=0.0)
    left = 0.99**200
    assert float(z.var()) == pytest.approx(left + 1e-4 * (1 - left) / (1 - 0.99**2), rel=0.05)


# --- generation ---


def test_generation_starts_from_its_prior_and_reaches_the_formula(lace) -> None:
    method, shape = lace(), normal(64, 4)
    noise = method.generate(formula("glasses"), shape, torch.Generator().manual_seed(3), strength=0.0)
    assert torch.equal(noise, normal(64, 4, seed=3))  # N(0, I), not the latents that were handed over
    for text in ("glasses & ~hat & hair=red", "glasses & age>0.6", "~glasses | hat", "hat^2.0 & age<0.1"):
        z = method.generate(formula(text), shape, torch.Generator().manual_seed(3))
        for latents, least, most in ((noise, 0.0, 0.9), (z, 0.98, 1.0)):
            share = formula(text).holds(predict_labels(SCHEMA, method.classifier(latents))).float().mean()
            assert least <= share <= most


def test_its_logic_gives_or_to_the_left(lace) -> None:
    """With equal chances of both, OR climbs its left side: its share of the gradient is 20/21."""
    method = lace()
    outputs = {"glasses": torch.zeros(1, requires_grad=True), "hat": torch.zeros(1, requires_grad=True)}
    left, right = torch.autograd.grad(method.energy(formula("glasses | hat"), outputs).sum(), list(outputs.values()))
    assert float(left / right) == pytest.approx(20)


@pytest.mark.parametrize("sampler", ["ode", "langevin"])
def test_samples_do_not_depend_on_their_batch(lace, sampler: str) -> None:
    method, shape = lace((5,), sampler=sampler, steps=30), normal(5, 4)
    whole = method.generate(formula("glasses & hair=red"), shape, generators(range(5)), 3.0)
    for i in range(5):
        alone = method.generate(formula("glasses & hair=red"), shape[:1], generators([i]), 3.0)
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-9, atol=1e-9)


# --- edits ---


@pytest.mark.parametrize("sampler", ["ode", "langevin"])
def test_rows_are_edited_each_by_itself_at_its_own_strength(lace, sampler: str) -> None:
    method, z_0 = lace((5,), sampler=sampler, steps=30), normal(6, 4)
    strength = torch.tensor([0.0, 0.5, 1.0, 1.5, 3.0, 1.2], dtype=torch.float64)
    asked = request("+glasses", "hair=red", strength=strength)
    result = method.edit(z_0, asked)
    assert result.request is asked
    for i in range(6):
        alone = method.edit(z_0[i : i + 1], request("+glasses", "hair=red", strength=float(strength[i]))).z_0
        torch.testing.assert_close(alone[0], result.z_0[i], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sampler", ["ode", "langevin"])
def test_an_edit_reaches_what_is_asked_and_more_strength_goes_further(lace, sampler: str) -> None:
    method, z_0 = lace(sampler=sampler, steps=50), normal(32, 4)
    logits = [
        method.classifier(method.edit(z_0, request("+glasses", strength=s)).z_0)["glasses"].mean()
        for s in (1e-6, 0.3, 1.0, 2.0, 4.0)  # Langevin's prior pulls, too, where hardly anything is asked
    ]
    assert all(b > a for a, b in pairwise(logits)) and logits[-1] > logits[0] + 1
    down = method.classifier(method.edit(z_0, request("-glasses", strength=2.0)).z_0)["glasses"].mean()
    assert down < logits[0] - 0.1


def test_a_target_is_its_continuous_condition(lace) -> None:
    """-(f - c)^2 / (2 s^2), whose maximum is where the mean is what was asked for."""
    method, z_0 = lace(keep_latent=0.0, keep_logits=0.0), normal(8, 4)
    (asked,) = request("age=0.4").edits
    outputs = method.classifier(z_0)
    expected = -(outputs["age"][:, 0] - 0.4).square() / (2 * 0.1**2)
    torch.testing.assert_close(method.energy(asked, outputs), expected)
    torch.testing.assert_close(method.energy(asked, outputs, 3.0), 3 * expected)
    mean = method.classifier(method.edit(z_0, request("age=0.4")).z_0)["age"][:, 0]
    torch.testing.assert_close(mean, torch.full((8,), 0.4, dtype=torch.float64), rtol=0, atol=1e-3)


def test_what_is_kept_changes_less(lace) -> None:
    """glasses are read off 2 z_0 + z_1, hat off z_1: who keeps the hat goes along z_0."""
    z_0 = normal(32, 4)
    moved = {}
    for weight in (0.0, 0.3):
        method = lace(keep_logits=weight)
        z = method.edit(z_0, request("+glasses", strength=1.5)).z_0
        before, after = (method.classifier(x) for x in (z_0, z))
        moved[weight] = (after["hat"] - before["hat"]).abs().mean()
        assert (after["glasses"] > before["glasses"]).all()
    assert moved[0.3] < 0.3 * moved[0.0]
    near, far = (lace(keep_latent=w, keep_logits=0.0).edit(z_0, request("+glasses")).z_0 - z_0 for w in (1.0, 0.01))
    assert (near.norm(dim=1) < 0.8 * far.norm(dim=1)).all()


def test_details_of_what_is_edited_are_not_kept(lace) -> None:
    """Of hair there is nothing under a hat: an edit of the hat may change it, one of the glasses may not."""
    z_0 = normal(16, 4)
    edits = {}
    for weight in (0.0, 0.05):
        method = lace(keep_logits=weight, keep_latent=0.0)
        method.classifier.layers[0].weight.data[[0, 3]] = 0  # what is left to keep is the hair
        edits[weight] = method.edit(z_0, request("+hat")).z_0
    torch.testing.assert_close(edits[0.0], edits[0.05], rtol=1e-9, atol=1e-9)


def test_edits_under_no_grad_and_in_single_precision(lace) -> None:
    method, z_0 = lace((5,)), normal(4, 4)
    with torch.no_grad():
        z = method.edit(z_0, request("+glasses")).z_0
    assert not z.requires_grad and (z - z_0).abs().max() > 0.01
    method.classifier.float()
    single = method.edit(z_0.float(), request("+glasses")).z_0
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, z.float(), rtol=1e-3, atol=1e-3)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="guidance needs gradients"):
        method.edit(z_0.float(), request("+glasses"))


# --- refusals ---


def test_questions_that_make_no_sense_are_refused(lace) -> None:
    method, z_0 = lace(), normal(3, 4)
    with pytest.raises(ValueError, match=r"one that can hold, got '~hair in \{blond, red, black\}', which leaves"):
        method.generate(~formula("hair in {blond, red, black}"), z_0)
    with pytest.raises(ValueError, match=r"'~age=0.4' leaves open where to; ask for a side, such as age>0\.4"):
        method.generate(~request("age=0.4").edits[0], z_0)
    z_0[1] = torch.nan
    with pytest.raises(ValueError, match="the energy's gradient must be finite, got NaN or infinity in row 1"):
        method.edit(z_0, request("+hat"))


def test_formulas_of_other_kinds_are_refused(lace) -> None:
    class Parity(Formula):
        def atoms(self):
            yield formula("hat")

        def verdict(self, labels):
            return labels[:, 0] > 0, labels[:, 0] <= 0

    with pytest.raises(TypeError, match=r"LACE knows atoms, ~, & and \|, got Parity; build formulas with `parse`"):
        lace().generate(Parity(), normal(3, 4))

    class Known(Atom):
        def contains(self, y):
            return ~y.isnan()

        def cells(self, thresholds):
            return frozenset({0, 1})

    with pytest.raises(TypeError, match="LACE knows the atoms that `parse` gives, got Known"):
        lace().generate(Known(SCHEMA["hat"], 1), normal(3, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "od"}, "unknown sampler 'od'; did you mean 'ode'"),
        ({"negation": "valu"}, "unknown negation 'valu'; did you mean 'value'"),
        ({"keep_latent": -1.0}, "`keep_latent` must be finite and >= 0, got -1.0; 0 leaves it out"),
        ({"keep_logits": math.nan}, "`keep_logits` must be finite and >= 0, got nan"),
        ({"noise": math.inf}, "`noise` must be finite and >= 0, got inf"),
        ({"spread": 0.0}, "`spread` must be finite and > 0, got 0.0"),
        ({"tolerance": 0.0}, "`tolerance` must be finite and > 0"),
        ({"step_size": -0.1}, "`step_size` must be finite and > 0"),
        ({"beta_min": 3.0, "beta_max": 2.0}, "`beta_min` and `beta_max` must be 0 <= beta_min <= beta_max, got 3.0"),
        ({"steps": 0}, "`steps` must be >= 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LACE(**options)
