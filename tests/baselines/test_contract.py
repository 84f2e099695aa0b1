"""What every baseline promises, asked of all of them; and the parts of the contract themselves."""

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import lcg.baselines
from lcg.baselines import (
    LACE,
    PPGN,
    Baseline,
    ComposableDiffusion,
    EnergyGuidance,
    GradCtrl,
    InterFaceGAN,
    LatentArithmetic,
    PotentialFlowTraversal,
    StyleFlow,
    Training,
    UnsupervisedDirections,
)
from lcg.baselines.contract import (
    check_atom,
    check_shape,
    is_conjunction,
    literals,
    pretrained,
    strength_per_row,
    when_fitted,
)
from lcg.baselines.directions import Kind
from lcg.benchmarks.options import options_of
from lcg.diffusion import generators
from lcg.editing.contract import EditRequest
from lcg.guidance import parse
from lcg.nets.conditional import ConditionalDenoiser
from lcg.nets.continuous_flow import ContinuousFlow
from lcg.nets.potential_flow import PotentialFlow
from lcg.schema import Attribute, Schema

Small = Any  # of conftest.py, which tests cannot import
NAN = float("nan")

TRAINED: dict[type[Baseline], Callable[[Small], Any]] = {
    LACE: lambda small: small.mlp(),
    GradCtrl: lambda small: small.mlp(),
    PPGN: lambda small: small.mlp(),
    EnergyGuidance: lambda small: small.mlp(),
    StyleFlow: lambda small: ContinuousFlow((small.size,), small.schema, (16,)),
    PotentialFlowTraversal: lambda small: PotentialFlow((small.size,), 3, 16),
    ComposableDiffusion: lambda small: ConditionalDenoiser((small.size,), small.schema, width=8, depth=1, features=2),
}
"""The network that a method with a checkpoint takes from it."""

METHODS: dict[str, tuple[type[Baseline], dict[str, Any]]] = {
    "arithmetic": (LatentArithmetic, {}),
    "probe": (LatentArithmetic, {"direction": "probe"}),
    "interfacegan": (InterFaceGAN, {"share": 0.2}),
    **{kind: (UnsupervisedDirections, {"kind": kind, "samples": 8}) for kind in get_args(Kind)},
    "lace": (LACE, {}),
    "lace_langevin": (LACE, {"sampler": "langevin", "steps": 10}),
    "styleflow": (StyleFlow, {}),
    "gradctrl": (GradCtrl, {}),
    "potential_flow": (PotentialFlowTraversal, {"rows": 16}),
    "composable": (ComposableDiffusion, {"steps": 4, "eta": 0.5}),
    "composable_noised": (ComposableDiffusion, {"steps": 4, "start": "noising", "t_start": 0.5}),
    "composable_chain": (ComposableDiffusion, {"steps": 3, "mcmc": "ula", "mcmc_steps": 2}),
    "ppgn": (PPGN, {"steps": 10, "eps3": 0.5}),
    "energy": (EnergyGuidance, {"steps": 20}),
}
TOLERANCE = {"styleflow": 1e-4, "lace": 1e-3}
"""Of a row in another batch: rounding, but where rows share a solver's steps, or rounding may change a row's own."""


def unfitted(name: str, small: Small, **more: Any) -> Baseline:
    """A method whose checkpoint, where it has one, was written."""
    kind, options = METHODS[name]
    if kind in TRAINED:
        torch.manual_seed(0)
        network = TRAINED[kind](small)
        if kind is ComposableDiffusion:
            torch.nn.init.normal_(network.net.output.weight, std=0.3)  # which starts at 0
        options = {"checkpoint": small.save(network), **options}
    return kind(**{**options, **more})


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def method(name: str, small) -> Baseline:
    return unfitted(name, small).fit(small.training())


@pytest.fixture(params=[name for name, (kind, _) in METHODS.items() if kind in TRAINED])
def with_checkpoint(request: pytest.FixtureRequest) -> str:
    return request.param


def close(found: Tensor, expected: Tensor, name: str) -> None:
    tolerance = TOLERANCE.get(name, 2e-5)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_every_baseline_is_asked() -> None:
    exported = {value for value in vars(lcg.baselines).values() if isinstance(value, type)}
    assert {kind for kind, _ in METHODS.values()} == exported - {Baseline, Training}


# --- edits ---


def test_strength_0_is_the_source_and_no_strength_is_1(method: Baseline, name: str, small) -> None:
    z_0 = small.normal(3, 4)
    for none in (0.0, torch.zeros(3)):
        edited = small.edit(method, z_0, "+glasses", "hair=red", strength=none)
        torch.testing.assert_close(edited, z_0, rtol=0, atol=1e-6)
    default = small.edit(method, z_0, "+glasses", "-hat")
    assert (default - z_0).abs().max() > 1e-3
    assert torch.equal(default, small.edit(method, z_0, "+glasses", "-hat", strength=1.0))


@pytest.mark.parametrize("edits", [("+glasses", "hair=red"), ("-hat", "age>0.5")])
def test_a_row_is_edited_for_itself_with_its_own_strength(
    method: Baseline, name: str, edits: tuple[str, ...], small
) -> None:
    z_0, strengths = small.normal(4, 4), torch.tensor([0.0, 0.5, 1.0, 2.0])
    together = small.edit(method, z_0, *edits, strength=strengths)
    for k, strength in enumerate(strengths.tolist()):
        alone = small.edit(method, z_0[k : k + 1], *edits, strength=strength)
        close(alone, together[k : k + 1], name)


def test_a_result_is_like_its_source_and_remembers_its_request(method: Baseline, small) -> None:
    z_0, request = small.normal(2, 4), small.request("+glasses")
    with torch.no_grad():
        result = method.edit(z_0, request)
    assert result.request is request
    assert result.z_0.shape == z_0.shape and result.z_0.dtype == z_0.dtype and not result.z_0.requires_grad
    assert small.edit(method, z_0[:0], "+glasses").shape == (0, 4)


# --- samples ---


def test_samples_do_not_depend_on_their_batch(method: Baseline, name: str, small) -> None:
    formula, z_0 = small.formula("glasses & ~hat"), small.normal(4, 4)
    assert method.can_generate(formula)
    whole = method.generate(formula, z_0, generators(range(4)), 0.5)
    assert whole.shape == z_0.shape and bool(whole.isfinite().all())
    close(method.generate(formula, z_0[[3, 1]], generators([3, 1]), 0.5), whole[[3, 1]], name)


def test_samples_have_each_its_own_strength(method: Baseline, name: str, small) -> None:
    formula, z_0, strengths = small.formula("glasses & ~hat"), small.normal(4, 4), torch.tensor([0.0, 0.5, 1.0, 2.0])
    together = method.generate(formula, z_0, generators(range(4)), strengths)
    for k, strength in enumerate(strengths.tolist()):
        close(method.generate(formula, z_0[k : k + 1], generators([k]), strength), together[k : k + 1], name)


def test_all_strengths_of_all_sources_may_be_asked_at_once(method: Baseline, name: str, small) -> None:
    """A source that comes several times, as in tuning, is edited as if it came once."""
    z_0, strengths = small.normal(3, 4), torch.tensor([0.5, 1.0, 2.0])
    labels = torch.tensor([[0.0, 1.0, NAN, 0.3]]).repeat(3, 1)
    edits = small.request("+glasses").edits
    each = EditRequest(edits, labels.repeat(3, 1), strengths.repeat_interleave(3))
    together = method.edit(z_0.repeat(3, 1), each).z_0.unflatten(0, (3, 3))
    for strength, found in zip(strengths.tolist(), together, strict=True):
        close(method.edit(z_0, EditRequest(edits, labels, strength)).z_0, found, name)


def test_what_it_cannot_sample_it_says(method: Baseline, small) -> None:
    assert method.can_generate(small.formula("~~glasses & ~hair=red^2.0"))
    formula = small.formula("glasses | hat")
    if method.can_generate(formula):
        assert isinstance(method, LACE)  # it has a logic of its own
        return
    with pytest.raises(ValueError, match=rf"{method.name} knows literals only, .* got 'glasses | hat'; use lcg"):
        method.generate(formula, small.normal(2, 4))


# --- what a benchmark relies on ---


def test_strengths_are_a_short_ascending_grid_around_the_default(name: str) -> None:
    strengths = METHODS[name][0].strengths
    assert list(strengths) == sorted({*strengths}) and len(strengths) <= 9
    assert min(strengths) > 0 and min(strengths) < 1.0 < max(strengths) and 1.0 in strengths


def test_names_tell_methods_apart(name: str, small) -> None:
    assert name.startswith(unfitted(name, small).name)


def test_options_are_kept_as_plain_values(name: str, small) -> None:
    """Cached results are found by them: an option that is not there could be changed without anybody noticing."""
    method, (kind, options) = unfitted(name, small), METHODS[name]
    known = options_of(method)
    for option, parameter in inspect.signature(kind).parameters.items():
        kept = "kind" if option == "direction" else option
        expected = options.get(option, parameter.default) if option != "checkpoint" else method.checkpoint
        assert known[kept] == json.loads(json.dumps(expected)), option
    assert json.loads(json.dumps(known)) == known


def test_a_path_is_known_as_its_text(with_checkpoint: str, small) -> None:
    method = unfitted(with_checkpoint, small)
    known = options_of(method)
    assert isinstance(known["checkpoint"], str) and len(known["checkpoint_sha256"]) == 64
    assert options_of(unfitted(with_checkpoint, small, checkpoint=Path(method.checkpoint))) == known


# --- refusals ---


def test_nothing_is_done_before_fitting(name: str, small) -> None:
    method, z_0 = unfitted(name, small), small.normal(2, 4)
    for use in (
        lambda: method.edit(z_0, small.request("+glasses")),
        lambda: method.generate(small.formula("glasses"), z_0),
    ):
        with pytest.raises(RuntimeError, match=rf"^{method.name} has not been fitted; call `fit\(training\)` first$"):
            use()
    assert method.fit(small.training()) is method


def test_latents_of_another_shape_are_refused(method: Baseline, small) -> None:
    for use in (
        lambda z: method.edit(z, small.request("+glasses")),
        lambda z: method.generate(small.formula("glasses"), z),
    ):
        with pytest.raises(ValueError, match=r"`z_0` must be latents of shape \(4,\), as those .* got \(5,\)"):
            use(small.normal(2, 5))


def test_strengths_that_lead_nowhere_are_refused(method: Baseline, small) -> None:
    z_0 = small.normal(2, 4)
    for strength in (-1.0, NAN, math.inf, torch.tensor([1.0, -1.0])):
        with pytest.raises(ValueError, match="`strength` must be finite and >= 0, got"):
            small.edit(method, z_0, "+glasses", strength=strength)
    with pytest.raises(ValueError, match="`strength` must be finite and >= 0, got"):
        method.generate(small.formula("glasses"), z_0, strength=-1.0)
    with pytest.raises(ValueError, match=r"`strength` must be one number or 2, one per latent, got shape \(3,\)"):
        small.edit(method, z_0, "+glasses", strength=torch.ones(3))


def test_atoms_of_another_schema_are_refused(method: Baseline, small) -> None:
    other = parse("hat", Schema((Attribute("hat"),)))
    for use in (lambda z: method.edit(z, EditRequest((other,))), lambda z: method.generate(other, z)):
        with pytest.raises(ValueError, match="'hat' was parsed with another schema; parse it with that of the labels"):
            use(small.normal(2, 4))


def test_checkpoints_must_be_there_and_of_the_same_latents(with_checkpoint: str, small) -> None:
    method = unfitted(with_checkpoint, small)
    with pytest.raises(FileNotFoundError, match=r"no \w+ at .*none.ckpt; make one with `lcg fit --config configs/base"):
        unfitted(with_checkpoint, small, checkpoint="none.ckpt").fit(small.training())
    method.fit(small.training(store="a" * 64))
    with pytest.raises(ValueError, match=r"trained on another store \(a+\) than the latents at hand \(b+\); fit it ag"):
        method.fit(small.training(store="b" * 64))


# --- the parts of the contract ---


def test_literals_are_atoms_with_sign_and_weight(small) -> None:
    found = small.literals("glasses & ~hat^2.0", "~~hair=red")
    assert [(str(one), one.positive, one.sign, one.weight) for one in found] == [
        ("glasses", True, 1.0, 1.0),
        ("~hat", False, -1.0, 2.0),
        ("hair=red", True, 1.0, 1.0),
    ]
    assert [str(one.atom) for one in found] == ["glasses", "hat", "hair=red"]
    assert literals([], small.schema, "a test") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("glasses", True),
        ("~glasses", True),
        ("~~glasses & hair=red^2.0 & ~age>0.5", True),
        ("glasses | hat", False),
        ("~(glasses & hat)", False),
        ("hat & (glasses | age>0.5)", False),
    ],
)
def test_conjunctions_of_literals_are_those_that_have_literals(text: str, expected: bool, small) -> None:
    assert is_conjunction(small.formula(text)) == expected
    if expected:
        assert small.literals(text)
    else:
        with pytest.raises(ValueError, match=r"^a test knows literals only, such as glasses, ~hat or hair=blond, got"):
            small.literals(text)


def test_atoms_belong_to_a_schema(small) -> None:
    check_atom(small.formula("hat"), small.schema)
    longer = Schema((*small.schema.attributes, Attribute("smile")))
    for atom in (parse("smile", longer), parse("hat", Schema((Attribute("hat"),)))):
        with pytest.raises(ValueError, match=f"'{atom}' was parsed with another schema; parse it with that of"):
            check_atom(atom, small.schema)
        with pytest.raises(ValueError, match=f"'{atom}' was parsed with another schema"):
            literals([atom], small.schema, "a test")


def test_a_strength_for_every_row() -> None:
    z_0 = torch.zeros(3, 2, 2, dtype=torch.float64)
    for given, expected in ((None, [1.0] * 3), (2, [2.0] * 3), (torch.tensor([0.5]), [0.5] * 3)):
        found = strength_per_row(given, z_0)
        assert found.shape == (3, 1, 1) and found.dtype == z_0.dtype and found.flatten().tolist() == expected
    assert strength_per_row(torch.tensor([0.0, 1.0, 2.5]), z_0).flatten().tolist() == [0.0, 1.0, 2.5]
    for given, shape in ((torch.ones(2), r"\(2,\)"), (torch.ones(3, 1), r"\(3, 1\)")):
        with pytest.raises(ValueError, match=rf"`strength` must be one number or 3, one per latent, got shape {shape}"):
            strength_per_row(given, z_0)
    for wrong in (-0.1, NAN, math.inf, torch.tensor([1.0, 1.0, -1.0])):
        with pytest.raises(ValueError, match=r"`strength` must be finite and >= 0, got .*negate the edit"):
            strength_per_row(wrong, z_0)


def test_shapes_are_compared_without_the_batch() -> None:
    check_shape(torch.zeros(7, 2, 3), (2, 3))
    with pytest.raises(ValueError, match=r"`z_0` must be latents of shape \(6,\), .* got \(2, 3\)"):
        check_shape(torch.zeros(7, 2, 3), (6,))


def test_what_was_pretrained_comes_back_frozen(small) -> None:
    network = small.mlp()
    loaded = pretrained(small.save(network), "latent_classifier", small.training(store="a" * 64))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    z_0 = small.normal(3, 4)
    assert torch.equal(loaded(z_0)["glasses"], network(z_0)["glasses"])


def test_what_was_pretrained_must_fit(small, wide) -> None:
    path, kind = small.save(small.mlp()), "latent_classifier"
    missing = r"no latent_classifier at .*none.ckpt; make one with `.*lace.yaml` or `.*gradctrl.yaml` or give its path"
    with pytest.raises(FileNotFoundError, match=missing):
        pretrained(small.folder / "none.ckpt", kind, small.training())
    with pytest.raises(ValueError, match="holds a latent_classifier, expected a continuous_flow; give the checkpoint"):
        pretrained(path, "continuous_flow", small.training())
    with pytest.raises(ValueError, match=r"another store \(a{12}\) than the latents at hand \(b{12}\); fit it again w"):
        pretrained(path, kind, small.training(store="b" * 64))
    with pytest.raises(ValueError, match=r"latents of shape \(4,\) with the attributes glasses, .* got \(8,\) with"):
        pretrained(path, kind, wide.training())
    fewer = Schema(small.schema.attributes[:2])
    with pytest.raises(ValueError, match=r"glasses, hat, hair, age, got \(4,\) with glasses, hat; fit it again with"):
        pretrained(path, kind, small.training(schema=fewer))
    with pytest.raises(ValueError, match=r"latents of shape \(4,\) .* got \(8,\)"):  # it knows no attributes
        pretrained(small.save(PotentialFlow((4,), 1)), "potential_flow", wide.training())


def test_latents_and_labels_of_a_training_must_fit(small) -> None:
    given = vars(small.training())
    training = Training(**{**given, "z_0": given["z_0"].view(200, 2, 2)})
    assert training.latent_shape == (2, 2)
    for z_0, labels in (
        (given["z_0"][:, 0], given["labels"]),
        (given["z_0"], given["labels"][:, :3]),
        (given["z_0"][:5], given["labels"]),
    ):
        with pytest.raises(ValueError, match=r"`z_0` must be \(N, \*latent\) and `labels` \(N, 4\), a row per latent"):
            Training(**{**given, "z_0": z_0, "labels": labels})
    with pytest.raises(ValueError, match="`z_0` must be finite, got NaN or infinity; check the latent store"):
        Training(**{**given, "z_0": given["z_0"].log()})


def test_a_training_decodes_raw_latents(small) -> None:
    training = small.training()
    training.statistics.mean[:] = torch.tensor([1.0, 0.0, -1.0, 0.5])
    training.statistics.std[:] = 2.0
    z_0 = training.z_0[:3].clone().requires_grad_()
    images = training.decode(z_0)
    expected = (2 * z_0 + training.statistics.mean).tanh().view(3, 1, 1, 4)
    torch.testing.assert_close(images, expected)
    assert images.requires_grad


def test_a_method_that_only_edits_says_so(small) -> None:
    class Still(Baseline):
        name, strengths = "still", (1.0,)

        def fit(self, training):
            return self

        def edit(self, z_0, request):
            raise NotImplementedError

    method = Still()
    assert not method.can_generate(small.formula("hat"))
    with pytest.raises(ValueError, match="still edits only, it has no samples for 'hat'; use lcg, or another method"):
        method.generate(small.formula("hat"), small.normal(2, 4))
    assert when_fitted(0, method) == 0  # only None is nothing
    with pytest.raises(RuntimeError, match=r"^still has not been fitted; call `fit\(training\)` first$"):
        when_fitted(None, method)
