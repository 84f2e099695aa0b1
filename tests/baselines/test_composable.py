"""Composable Diffusion: its formula, what it is exact for, the bias of its products and the chains that remove it."""

import math
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from lcg.baselines.composable import ComposableDiffusion, ComposedDenoiser, ConditionalDensity
from lcg.baselines.contract import Training, literals
from lcg.conformance import catalogue
from lcg.conformance.distances import total_variation, total_variation_floor
from lcg.conformance.worlds import World
from lcg.data.datamodule import LatentDataModule
from lcg.diffusion import Denoiser, coefficients, generators
from lcg.editing import EditRequest, edit_sequence
from lcg.generators.base import Generator
from lcg.guidance import Formula, parse, parse_edit
from lcg.guidance.formula import And, Has
from lcg.modules.conditional import ConditionalPriorModule
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.conditional import ConditionalDenoiser
from lcg.schema import Attribute, Schema

NAN = float("nan")
SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("hair", "categorical", ("blond", "red", "black"), applies_if={"hat": False}),
        Attribute("age", "continuous"),
        Attribute("beard"),
        Attribute("top", "categorical", ("long", "short"), detail_of=("hat",)),
    )
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def network() -> ConditionalDenoiser:
    """A small conditional denoiser whose output is not zero any more."""
    torch.manual_seed(0)
    denoiser = ConditionalDenoiser((4,), SCHEMA, width=8, depth=2, features=3).double().eval().requires_grad_(False)
    torch.nn.init.normal_(denoiser.net.output.weight, std=0.3)
    return denoiser


def labels(**given: float) -> Tensor:
    """One row (1, A), NaN where nothing is given."""
    return torch.tensor([[given.get(name, NAN) for name in SCHEMA.names]], dtype=torch.float64)


def training_labels() -> Tensor:
    """(200, A): the age is uniform on [0, 1]."""
    rows = labels().repeat(200, 1)
    rows[:, 2] = torch.linspace(0, 1, 200)
    return rows


def composable(**options: object) -> ComposableDiffusion:
    return ComposableDiffusion(**{"steps": 8, **options}).use(network(), training_labels())


def edits(*texts: str) -> tuple[Formula, ...]:
    return tuple(parse_edit(text, SCHEMA) for text in texts)


def composed(method: ComposableDiffusion, text: str, strength: float | Tensor = 1.0, **more: object) -> Denoiser:
    return method.composed(literals([parse(text, SCHEMA)], SCHEMA, method.name), strength, **more)


class Line:
    """The exact conditional denoiser of `catalogue.line`, given at most one label, and its density.

    z_0 ~ N(0, 1) and P(a = 1 | z_0) = Phi(3 z_0), so that P(a = 1 | z_t) = Phi(c z_t) with c = 3 alpha_t / sqrt(1 + 9
    sigma_t^2); the same for b.
    """

    def __init__(self) -> None:
        self.world = catalogue.line()
        self.schema, self.schedule, self.latent_shape = self.world.schema, self.world.schedule, (1,)

    def __call__(self, z_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        _, sigma = coefficients(self.schedule, t, z_t)
        c, sign = self.given(z_t, t, labels)
        log_density = -0.5 * (c * z_t).square() - 0.5 * math.log(2 * math.pi)
        return sigma * (z_t - sign * c * (log_density - torch.special.log_ndtr(sign * c * z_t)).exp())

    def log_prob(self, z_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        c, sign = self.given(z_t, t, labels)
        likelihood = torch.where(sign == 0, 0.0, torch.special.log_ndtr(sign * c * z_t))
        return (likelihood - 0.5 * z_t.square())[:, 0]

    def given(self, z_t: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The steepness c, and the sign of what is conditioned on: 0 for nothing."""
        alpha, sigma = coefficients(self.schedule, t, z_t)
        return 3 * alpha / (1 + 9 * sigma**2).sqrt(), (2 * labels - 1).nan_to_num(0).sum(1, keepdim=True)


class Exact:
    """The exact conditional denoiser of a world of probits, given any labels."""

    def __init__(self, world: World) -> None:
        self.world, self.schema, self.schedule, self.latent_shape = world, world.schema, world.schedule, (world.dim,)

    def __call__(self, z_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        _, sigma = coefficients(self.schedule, t, z_t)
        eps = self.world.denoiser(z_t, t)
        kinds, which = labels.nan_to_num(-1).unique(dim=0, return_inverse=True)
        for k, kind in enumerate(kinds.tolist()):
            atoms = [Has(a, j) if kind[j] else ~Has(a, j) for j, a in enumerate(self.schema) if kind[j] >= 0]
            if atoms:
                term, rows = self.world.joint(atoms[0] if len(atoms) == 1 else And(tuple(atoms))), which == k
                eps[rows] = eps[rows] - sigma[rows] * term.score(z_t[rows], t[rows])
        return eps


# --- the formula ---


def test_without_conditions_the_score_is_the_unconditional_one() -> None:
    model, z_t, t = network(), normal(6, 4), torch.rand(6, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(ComposedDenoiser(model, labels(), (), ())(z_t, t), model(z_t, t), rtol=1e-12, atol=1e-13)
    silent = ComposedDenoiser(model, labels(), [labels(), labels()], [7.5, -3.0])
    torch.testing.assert_close(silent(z_t, t), model(z_t, t), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("same_time", [True, False])
def test_the_score_is_the_formula_of_the_source(same_time: bool) -> None:
    model, z_t, t = network(), normal(6, 4), torch.rand(6, generator=torch.Generator().manual_seed(1)).double()
    t = t[:1].expand(6) if same_time else t
    eps, hat, red, no_beard = (model(z_t, t, y) for y in (labels(), labels(hat=1), labels(hair=1), labels(beard=0)))
    beard, method = model(z_t, t, labels(beard=1)), composable()
    close = dict(rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(composed(method, "hat")(z_t, t), eps + 7.5 * (hat - eps), **close)
    both = eps + 7.5 * (hat - eps) + 7.5 * (red - eps)
    torch.testing.assert_close(composed(method, "hat & hair=red")(z_t, t), both, **close)
    weighted = eps + 3.0 * (hat - eps) + 15.0 * (red - eps)
    torch.testing.assert_close(composed(method, "hat^0.4 & hair=red^2.0")(z_t, t), weighted, **close)
    # NOT is the negative weight, or the condition that the attribute is 0
    torch.testing.assert_close(composed(method, "~beard")(z_t, t), eps - 7.5 * (beard - eps), **close)
    other = composed(method, "~beard", negation="label")
    torch.testing.assert_close(other(z_t, t), eps + 7.5 * (no_beard - eps), **close)


def test_strengths_multiply_the_weights_row_by_row() -> None:
    method, z_t, t = composable(weight=2.0), normal(3, 4), torch.full((3,), 0.4).double()
    each = composed(method, "hat & ~beard", torch.tensor([0.0, 0.5, 3.0]).double())(z_t, t)
    for i, strength in enumerate((0.0, 0.5, 3.0)):
        alone = composed(method, "hat & ~beard", strength)(z_t[i : i + 1], t[i : i + 1])
        torch.testing.assert_close(each[i : i + 1], alone, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(each[:1], method.model(z_t[:1], t[:1]), rtol=1e-10, atol=1e-12)


def test_what_is_kept_is_in_every_score() -> None:
    method, z_t, t = composable(), normal(2, 4), torch.full((2,), 0.4).double()
    context = torch.cat((labels(beard=1), labels(age=0.3)))
    found = composed(method, "hat", context=context)(z_t, t)
    base = method.model(z_t, t, context)
    hat = method.model(z_t, t, torch.cat((labels(beard=1, hat=1), labels(age=0.3, hat=1))))
    torch.testing.assert_close(found, base + 7.5 * (hat - base), rtol=1e-10, atol=1e-12)


# --- which label a literal is ---


@pytest.mark.parametrize(
    ("text", "negation", "expected"),
    [
        ("hat", "weight", (1.0, 1.0)),
        ("~hat", "weight", (1.0, -1.0)),
        ("~~hat", "weight", (1.0, 1.0)),
        ("~hat", "label", (0.0, 1.0)),
        ("hair=black", "label", (2.0, 1.0)),
        ("~hair=black", "label", (2.0, -1.0)),  # red or blond is no condition
        ("~top=long", "label", (1.0, 1.0)),  # but not long is short
        ("~top=long", "weight", (0.0, -1.0)),
        ("~(hair in {blond, red})", "label", (2.0, 1.0)),
        ("age>0.6", "label", (0.8, 1.0)),
        ("age<0.2", "weight", (0.1, 1.0)),
        ("~age>0.6", "weight", (0.8, -1.0)),
        ("~age>0.6", "label", (0.3, 1.0)),
    ],
)
def test_the_label_and_sign_of_a_literal(text: str, negation: str, expected: tuple[float, float]) -> None:
    (literal,) = literals([parse(text, SCHEMA)], SCHEMA, "composable")
    assert composable().condition(literal, negation) == pytest.approx(expected, abs=0.005)


def test_a_target_is_the_mean_of_the_labels_near_it() -> None:
    (literal,) = literals(edits("age=0.3"), SCHEMA, "composable")
    assert composable().condition(literal) == pytest.approx((0.3, 1.0), abs=0.005)
    assert float((composable().edit(normal(2, 4), EditRequest(edits("age=0.3"))).z_0 - normal(2, 4)).abs().max()) > 0.1


def test_what_is_no_condition_is_refused() -> None:
    method = composable()
    several, old = (literals([parse(text, SCHEMA)], SCHEMA, "")[0] for text in ("hair in {blond, red}", "age>2"))
    with pytest.raises(ValueError, match=r"has no OR, and so no condition for 'hair in \{blond, red\}'; ask for one"):
        method.condition(several)
    with pytest.raises(ValueError, match=r"no training label for which 'age>2\.0' holds, so it has no condition"):
        method.condition(old)


def test_only_conjunctions_of_single_values_can_be_sampled() -> None:
    method, z = composable(), normal(2, 4)
    for text in ("hat", "~hat & hair=red", "age>0.5 & ~hair=blond^2.0"):
        assert method.can_generate(parse(text, SCHEMA))
    for text in ("hat | beard", "~(hat & beard)", "hat & (beard | hair=red)", "hat & hair in {blond, red}"):
        assert not method.can_generate(parse(text, SCHEMA))
        with pytest.raises(ValueError, match=r"knows literals only|has no OR"):
            method.generate(parse(text, SCHEMA), z)


# --- the density that is sampled ---


SAMPLES = 2500
FLOOR = total_variation_floor(SAMPLES)


def distance(text: str, *signs: float, **options: object) -> float:
    """Total variation between samples with exact scores, w = 1, and p(z_0) prod_i Phi(sign_i 3 z_0) by rejection."""
    line, rng = Line(), torch.Generator().manual_seed(1)
    method = ComposableDiffusion(**{"weight": 1.0, "steps": 40, "negation": "label", **options}).use(line)
    randomness = torch.Generator().manual_seed(0)
    samples = method.generate(parse(text, line.schema), torch.zeros(SAMPLES, 1).double(), randomness)
    z_0, u = torch.randn(100_000, 1, dtype=torch.float64, generator=rng), torch.rand(100_000, generator=rng)
    likelihood = torch.stack([torch.special.ndtr(sign * 3 * z_0[:, 0]) for sign in signs]).prod(0)
    return total_variation(samples, z_0[u < likelihood])


def test_the_lines_scores_are_the_worlds() -> None:
    line, t = Line(), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).double()
    z_t = normal(5, 1)
    for given in ([1.0, NAN], [NAN, 0.0], [NAN, NAN]):
        rows = torch.tensor([given]).double().expand(5, 2)
        torch.testing.assert_close(line(z_t, t, rows), Exact(line.world)(z_t, t, rows), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("text", "sign"), [("a", 1.0), ("~b", -1.0)])
def test_one_condition_of_weight_one_samples_the_exact_conditional(text: str, sign: float) -> None:
    assert distance(text, sign) < 2.0 * FLOOR


@pytest.mark.parametrize(("mcmc", "steps", "size"), [("ula", 6, 0.1), ("mala", 4, 0.5)])
def test_the_product_of_dependent_conditions_is_biased_and_chains_remove_the_bias(
    mcmc: str, steps: int, size: float
) -> None:
    """Both attributes prefer large z_0: counted twice at every level, they push too far."""
    naive = distance("a & b", 1.0, 1.0)
    corrected = distance("a & b", 1.0, 1.0, mcmc=mcmc, mcmc_steps=steps, mcmc_step_size=size)
    assert corrected < 0.09 < 0.2 < naive


def test_the_composed_density_has_the_composed_score() -> None:
    """log q + sum_i w_i (log q_i - log q), whose gradient is -eps_hat / sigma_t; what MALA accepts by."""
    line = Line()
    assert isinstance(line, ConditionalDensity) and not isinstance(network(), ConditionalDensity)
    method = ComposableDiffusion(weight=1.5).use(line)
    both = method.composed(literals([parse("a & ~b", line.schema)], line.schema, ""))
    z_t, t = normal(5, 1).requires_grad_(), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]).double()
    given = (torch.tensor([y]).double() for y in ([NAN, NAN], [1.0, NAN], [NAN, 1.0]))
    log_q, log_a, log_b = (line.log_prob(z_t, t, y) for y in given)
    log_p = both.log_prob(z_t, t)
    torch.testing.assert_close(log_p, log_q + 1.5 * (log_a - log_q) - 1.5 * (log_b - log_q), rtol=1e-10, atol=1e-12)
    (gradient,) = torch.autograd.grad(log_p.sum(), z_t)
    torch.testing.assert_close(both.score(z_t.detach(), t), gradient, rtol=1e-8, atol=1e-10)


# --- samples ---


def test_samples_of_strength_zero_are_the_priors() -> None:
    method, z, rng = composable(), normal(5, 4), generators(range(5))
    prior = method.generate(parse("hat", SCHEMA), z, rng, strength=0.0)
    other = method.generate(parse("hair=red & ~beard", SCHEMA), z, generators(range(5)), strength=0.0)
    torch.testing.assert_close(prior, other, rtol=1e-10, atol=1e-11)
    hat = method.generate(parse("hat", SCHEMA), z, generators(range(5)))
    assert float((hat - prior).abs().max()) > 1e-3


@pytest.mark.parametrize("options", [{}, {"eta": 1.0}, {"mcmc": "ula", "mcmc_steps": 2}])
def test_samples_do_not_depend_on_their_batch(options: dict[str, object]) -> None:
    method, z, formula = composable(**options), normal(3, 4), parse("hat & ~beard", SCHEMA)
    whole = method.generate(formula, z, generators([3, 4, 5]))
    parts = [method.generate(formula, z[:1], generators([seed])) for seed in (3, 4, 5)]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-9, atol=1e-10)
    assert torch.equal(whole, method.generate(formula, -z, generators([3, 4, 5])))  # only their number counts


# --- edits ---


@pytest.mark.parametrize("options", [{}, {"start": "noising", "t_start": 0.6}, {"keep": "concept"}, {"keep": "none"}])
def test_strength_zero_is_the_source_and_rows_are_independent(options: dict[str, object]) -> None:
    method, z = composable(**options), normal(3, 4)
    known = torch.cat((labels(hat=0, beard=1), labels(hat=0, hair=2), labels(hat=1)))
    strength = torch.tensor([0.0, 0.3, 1.0])
    wanted = edits("+hat", "-beard")
    request = EditRequest(wanted, known, strength)
    result = method.edit(z, request)
    assert result.request is request
    assert torch.equal(result.z_0[0], z[0])
    assert torch.equal(method.edit(z, EditRequest(wanted, known, 0.0)).z_0, z)
    for i in range(3):
        alone = method.edit(z[i : i + 1], EditRequest(wanted, known[i : i + 1], float(strength[i])))
        torch.testing.assert_close(result.z_0[i : i + 1], alone.z_0, rtol=1e-8, atol=1e-9)
    default = method.edit(z, EditRequest(wanted, known))
    torch.testing.assert_close(default.z_0, method.edit(z, EditRequest(wanted, known, 1.0)).z_0)


def test_a_source_that_comes_with_several_strengths_is_inverted_once() -> None:
    method, z, rows = composable(), normal(3, 4).repeat(2, 1), []
    known = torch.cat((labels(hat=0), labels(hat=0, beard=0), labels(hat=1))).repeat(2, 1)
    known[4, SCHEMA.index("beard")] = 1.0  # the same latent, other labels: another inversion
    strength = torch.tensor([0.3, 0.3, 0.3, 1.0, 1.0, 1.0])
    together = method.edit(z, EditRequest(edits("+hat"), known, strength)).z_0
    method.model.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    method.edit(z, EditRequest(edits("+hat"), known, strength))
    assert rows == [4] * 8 + [3 * 6] * 8  # inversion; base, hat and what is kept
    for i in range(6):
        alone = method.edit(z[i : i + 1], EditRequest(edits("+hat"), known[i : i + 1], float(strength[i])))
        torch.testing.assert_close(together[i : i + 1], alone.z_0, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("keep", ["context", "concept", "none"])
def test_a_vanishing_strength_leads_back_to_the_source(keep: str) -> None:
    """The inversion follows what the unguided path would be, with the labels that are kept in it."""
    method, z = composable(keep=keep, steps=50), normal(3, 4)
    request = EditRequest(edits("+hat"), labels(beard=1, age=0.4).repeat(3, 1), 1e-9)
    assert float((method.edit(z, request).z_0 - z).abs().max()) < 0.1
    assert float((method.edit(z, EditRequest(request.edits, request.labels, 1.0)).z_0 - z).abs().max()) > 0.1


def test_little_noise_changes_little() -> None:
    z, request = normal(3, 4), EditRequest(edits("+hat"), None, 0.2)
    far = [
        float((composable(start="noising", t_start=t_start).edit(z, request).z_0 - z).norm())
        for t_start in (0.02, 0.2, 0.9)
    ]
    assert far[0] < 0.2 and far[0] < far[1] < far[2]


def test_an_edit_sets_the_attribute_and_keeps_the_others() -> None:
    """With exact scores: sources become `a` or cease to be, and stay at the side of `c` that they are on."""
    world = catalogue.plane()
    seen, prior = [world.attributes[name] for name in ("a", "c")], world.denoiser
    part = World(prior.log_weights, prior.means, world.covariances, seen, world.schedule)
    method = ComposableDiffusion(weight=3.0, steps=25).use(Exact(part))
    z = part.sample(120, torch.Generator().manual_seed(0))
    clean = torch.zeros(120).double()
    before = {name: u.sigmoid() for name, u in part.classifier(z, clean).items()}
    known = torch.stack([(before[name] > 0.5).double() for name in ("a", "c")], dim=1)
    sure = ((before["a"] - 0.5).abs() > 0.4) & ((before["c"] - 0.5).abs() > 0.4)
    for text, sign in (("+a", 1), ("-a", -1)):
        request = EditRequest((parse_edit(text, part.schema),), known)
        after = {name: u.sigmoid() for name, u in part.classifier(method.edit(z, request).z_0, clean).items()}
        changed = sure & ((known[:, 0] == 1) != (sign == 1))
        assert int(changed.sum()) >= 10
        assert float(((after["a"] - 0.5) * sign > 0)[changed].double().mean()) > 0.9
        assert float(((after["c"] - 0.5) * (before["c"] - 0.5) > 0)[changed].double().mean()) > 0.9


def test_kept_labels_are_those_that_no_edit_touches() -> None:
    method, z = composable(), normal(2, 4)
    known = torch.cat((labels(hat=0, hair=1, age=0.2, beard=1, top=0), labels(hat=1, hair=1, beard=0, top=1)))
    kept = method.kept_labels(z, EditRequest(edits("+beard"), known))
    expected = torch.cat((labels(hat=0, hair=1, age=0.2, top=0), labels(hat=1, top=1)))  # hair under a hat is unknown
    torch.testing.assert_close(kept, expected, equal_nan=True)
    freed = method.kept_labels(z, EditRequest(edits("+hat"), known))  # the top is a detail of hats, hair needs none
    torch.testing.assert_close(freed, torch.cat((labels(age=0.2, beard=1), labels(beard=0))), equal_nan=True)
    assert bool(composable(keep="none").kept_labels(z, EditRequest(edits("+hat"), known)).isnan().all())
    assert bool(method.kept_labels(z, EditRequest(edits("+hat"))).isnan().all())


def test_labels_that_are_not_known_are_read_by_the_classifier() -> None:
    torch.manual_seed(0)
    classifier = TimeConditionedClassifier((4,), SCHEMA, width=8, depth=1).double().eval()
    torch.nn.init.normal_(classifier.net.output.weight)
    method, z = ComposableDiffusion().use(network(), None, classifier), normal(6, 4)
    read = method.kept_labels(z, EditRequest(edits("+beard")))
    assert bool(read[:, [0, 2, 4]].isfinite().all()) and bool(read[:, 3].isnan().all())
    assert torch.equal(read[:, 1].isnan(), read[:, 0] == 1)  # no hair is seen under a hat
    known = labels(hat=0).repeat(6, 1)
    told = method.kept_labels(z, EditRequest(edits("+beard"), known))
    assert torch.equal(told[:, 0], torch.zeros(6).double()) and torch.equal(told[:, 2], read[:, 2])


def test_a_sequence_of_edits_starts_from_the_source() -> None:
    method, z = composable(), normal(2, 4)
    results = edit_sequence(method, z, edits("+hat", "hair=red"))
    assert torch.equal(results[1].z_0, method.edit(z, EditRequest(edits("+hat", "hair=red"))).z_0)


# --- a network that was trained ---


class Nothing(Generator):
    """A generator that is never asked."""

    latent_shape, image_shape = (4,), (3, 1, 1)

    def decode(self, z: Tensor) -> Tensor:
        return z.new_zeros(len(z), 3, 1, 1)


def training(store: str) -> Training:
    data = LatentDataModule(store)
    z_0, schema = data.statistics.standardise(data.store.latents()), data.schema
    classifier = TimeConditionedClassifier((4,), schema, width=8, depth=1).eval()
    prior = ConditionalDenoiser((4,), schema, width=8, depth=1)
    known = (z_0, data.store.labels(), schema, Nothing(), data.statistics)
    return Training(*known, prior, prior.schedule, classifier, data.store.fingerprint)


def test_what_was_fitted_edits_and_generates(tmp_path: Path, tiny_store) -> None:
    """Latents with a hat lie at +1 on the first axis, without at -1 (before they are standardised)."""
    seed_everything(0)
    store = tiny_store()
    saved = ModelCheckpoint(tmp_path, "conditional", enable_version_counter=False)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu",
        max_steps=80,
        max_epochs=-1,
        check_val_every_n_epoch=5,
        default_root_dir=tmp_path,
        callbacks=[saved],
        **quiet,
    )
    module = ConditionalPriorModule(width=48, depth=2, warmup=5, lr=1e-2)
    trainer.fit(module, LatentDataModule(store, batch_size=32))
    given = training(store)
    method = ComposableDiffusion(str(tmp_path / "conditional.ckpt"), weight=2.0, steps=20).fit(given)
    assert isinstance(method.model, ConditionalDenoiser)
    for text, side in (("hat", 1), ("~hat", -1)):
        samples = method.generate(parse(text, given.schema), given.z_0[:64], torch.Generator().manual_seed(0))
        assert float((samples[:, 0] * side > 0).float().mean()) > 0.8, text
    bare = given.z_0[given.labels[:, 0] == 0][:32]
    edited = method.edit(bare, EditRequest((parse_edit("+hat", given.schema),))).z_0
    assert float((edited[:, 0] > 0).float().mean()) > 0.8

    with pytest.raises(ValueError, match=r"trained on another store .* fit it again with .*conditional\.yaml"):
        ComposableDiffusion(str(tmp_path / "conditional.ckpt")).fit(training(tiny_store(n=300)))
    with pytest.raises(ValueError, match=r"`mcmc`='mala' needs the density of z_t given labels.*use 'ula'"):
        ComposableDiffusion(str(tmp_path / "conditional.ckpt"), mcmc="mala").fit(given)
    with pytest.raises(FileNotFoundError, match=r"no conditional_denoiser at .*configs/baseline/conditional\.yaml"):
        ComposableDiffusion(str(tmp_path / "none.ckpt")).fit(given)


# --- refusals ---


def test_wrong_options_are_refused() -> None:
    for option in ("negation", "mcmc", "start", "keep"):
        with pytest.raises(ValueError, match=f"unknown {option} 'other'.* Composable Diffusion has: "):
            ComposableDiffusion(**{option: "other"})
    for weight in (0.0, -1.0, NAN, float("inf")):
        with pytest.raises(ValueError, match=r"`weight` must be positive and finite, got .*7\.5"):
            ComposableDiffusion(weight=weight)
    for t_start in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"`t_start` must be in \(0, 1\), got "):
            ComposableDiffusion(t_start=t_start)
    with pytest.raises(ValueError, match="`steps` of a corrector must be at least 1, got 0"):
        ComposableDiffusion(mcmc_steps=0)


def test_labels_must_fit_the_sources() -> None:
    with pytest.raises(ValueError, match=r"`labels` of the request must have shape \(2, 5\), .* got \(3, 5\)"):
        composable().edit(normal(2, 4), EditRequest(edits("+hat"), labels().repeat(3, 1)))
