import copy
from dataclasses import replace
from typing import get_args

import pytest
import torch
from torch import Tensor

from lcg.nets.classifier import LEVELS, TimeConditionedClassifier, Trunk
from lcg.nets.heads import HeadOutputs, independent, log_likelihoods
from lcg.schema import Schema

both_trunks = pytest.mark.parametrize("trunk", get_args(Trunk))


def net(schema: Schema, latent: tuple[int, ...] = (4,), trunk: Trunk = "shared") -> TimeConditionedClassifier:
    torch.manual_seed(0)
    classifier = TimeConditionedClassifier(latent, schema, width=8, depth=2, trunk=trunk).double().eval()
    for own in [classifier.net] if trunk == "shared" else classifier.nets:
        torch.nn.init.normal_(own.output.weight)
    return classifier


def tempered_net(schema: Schema, trunk: Trunk) -> TimeConditionedClassifier:
    """Frozen, and at a temperature that is not 1."""
    classifier = net(schema, trunk=trunk).requires_grad_(False)
    classifier.log_temperature.copy_(torch.linspace(-1, 1, LEVELS))
    return classifier


def batch(*latent: int, n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(n, *latent, dtype=torch.float64, generator=generator),
        torch.rand(n, dtype=torch.float64, generator=generator),
    )


@both_trunks
def test_a_new_classifier_knows_nothing(schema: Schema, trunk: Trunk) -> None:
    """Even probabilities and a standard normal: guidance by it has no gradient."""
    outputs = TimeConditionedClassifier((4,), schema, width=8, trunk=trunk).double()(*batch(4))
    assert all(not output.any() for output in outputs.values())


@both_trunks
def test_outputs_are_by_attribute(schema: Schema, trunk: Trunk) -> None:
    outputs = net(schema, trunk=trunk)(*batch(4))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "hat": (6,),
        "hair": (6, 3),
        "age": (6, 2),
        "beard": (6,),
    }


@both_trunks
def test_latents_of_any_shape_are_flattened_inside(schema: Schema, trunk: Trunk) -> None:
    z_t, t = batch(2, 2)
    flat, shaped = net(schema, trunk=trunk)(z_t.flatten(1), t), net(schema, (2, 2), trunk)(z_t, t)
    assert all(torch.equal(flat[name], shaped[name]) for name in schema.names)


@both_trunks
def test_rows_are_independent_also_in_their_gradients(schema: Schema, trunk: Trunk) -> None:
    classifier, (z_t, t) = net(schema, trunk=trunk), batch(4)
    labels = torch.tensor([[1, 2, 0.3, 0]], dtype=torch.float64).expand(len(z_t), 4)

    def gradient(rows: slice) -> Tensor:
        z = z_t[rows].clone().requires_grad_()
        (grad,) = torch.autograd.grad(log_likelihoods(schema, classifier(z, t[rows]), labels[rows]).sum(), z)
        return grad

    whole = gradient(slice(None))
    assert whole.abs().min() > 0
    for i in range(len(z_t)):
        torch.testing.assert_close(gradient(slice(i, i + 1)), whole[i : i + 1], rtol=1e-11, atol=1e-12)


@both_trunks
def test_its_config_builds_it_again(schema: Schema, trunk: Trunk) -> None:
    classifier, (z_t, t) = net(schema, trunk=trunk), batch(4)
    config = classifier.config
    again = TimeConditionedClassifier(
        **{**config, "latent_shape": tuple(config["latent_shape"]), "schema": Schema.from_dict(config["schema"])}
    ).double()
    again.load_state_dict(classifier.state_dict())
    again.eval()
    assert again.schema == schema
    assert all(torch.equal(again(z_t, t)[name], classifier(z_t, t)[name]) for name in schema.names)


def test_latents_of_another_store_are_refused(schema: Schema) -> None:
    with pytest.raises(ValueError, match=r"trained on latents of shape \(4,\), got \(2, 2\); use the classifier"):
        net(schema)(*batch(2, 2))


# --- a trunk for each attribute ---


def largest_difference(found: HeadOutputs, expected: HeadOutputs) -> float:
    """Over the attributes that were found."""
    return max(float((found[name] - expected[name]).detach().abs().max()) for name in found)


def test_separate_trunks_are_as_many_classifiers_of_one_attribute(schema: Schema) -> None:
    classifier, (z_t, t) = tempered_net(schema, "separate"), batch(4)
    outputs = classifier(z_t, t)
    for attribute, own in zip(schema, classifier.nets, strict=True):
        alone = net(Schema((replace(attribute, applies_if={}),)))
        alone.net.load_state_dict(own.state_dict())
        alone.log_temperature.copy_(classifier.log_temperature)
        assert torch.equal(alone(z_t, t)[attribute.name], outputs[attribute.name])


def test_separate_trunks_share_no_weight(schema: Schema) -> None:
    classifier, (z_t, t) = net(schema, trunk="separate"), batch(4)
    outputs = classifier(z_t, t)
    for k, name in enumerate(schema.names):
        classifier.zero_grad()
        outputs[name].sum().backward(retain_graph=True)
        used = [any(p.grad is not None and p.grad.any() for p in own.parameters()) for own in classifier.nets]
        assert used == [j == k for j in range(len(schema))]


@both_trunks
@pytest.mark.parametrize("names", [("hat", "hair", "age", "beard"), ("hat", "beard"), ("hair",), ("beard",)])
@pytest.mark.parametrize("rows", [1, 5])
def test_prepared_for_some_times_it_is_the_same_with_the_same_gradient(
    schema: Schema, trunk: Trunk, names: tuple[str, ...], rows: int
) -> None:
    """Also of a part of the attributes, which have different numbers of outputs, or all a single one."""
    whole, (z, _), times = tempered_net(schema, trunk), batch(4, n=rows), torch.tensor([0.9, 0.3, 0.05]).double()
    part = whole.restricted(names)
    labels = torch.tensor([[1, 2, 0.3, 0]], dtype=z.dtype).expand(rows, 4)
    labels = labels[:, [schema.index(attribute.name) for attribute in part.schema]]
    for prepared, t in zip(part.prepare(times), times, strict=True):
        found, expected = [], []
        for outputs_of, results in ((prepared, found), (lambda x, t=t: part(x, t.expand(rows)), expected)):
            x = z.clone().requires_grad_()
            outputs = independent(outputs_of(x))
            (gradient,) = torch.autograd.grad(log_likelihoods(part.schema, outputs, labels).sum(), x)
            results += [outputs, gradient]
        assert largest_difference(found[0], expected[0]) < 1e-12
        assert expected[1].abs().max() > 1e-4 and (found[1] - expected[1]).abs().max() < 1e-11
        assert largest_difference(found[0], whole(z, t.expand(rows))) < 1e-12


def test_a_part_of_separate_trunks_is_those_of_its_attributes(schema: Schema) -> None:
    whole = tempered_net(schema, "separate")
    part = whole.restricted(["beard", "hair"])
    assert part.schema.names == ("hair", "beard")
    assert part.nets[0] is whole.nets[1] and part.nets[1] is whole.nets[3] and len(part.nets) == 2
    assert part.config["trunk"] == "separate" and not part.training
    assert part is whole.restricted(["hair", "beard"])  # kept while the weights stay as they are
    with torch.no_grad():
        whole.nets[1].input.weight.mul_(2)
    again = whole.restricted(["hair", "beard"])
    (z_t, _), times = batch(4), torch.tensor([0.5]).double()
    assert again is not part
    assert largest_difference(again.prepare(times)[0](z_t), whole(z_t, times.expand(len(z_t)))) < 1e-12
    with pytest.raises(ValueError, match="unknown attribute 'hiar'; did you mean 'hair'"):
        whole.restricted(["hiar"])


@both_trunks
def test_a_copy_has_weights_of_its_own(schema: Schema, trunk: Trunk) -> None:
    """Also where it is prepared: averages of weights in training are made on copies."""
    classifier, (z_t, t), times = tempered_net(schema, trunk), batch(4), torch.tensor([0.5]).double()
    before, again = classifier(z_t, t), copy.deepcopy(classifier)
    with torch.no_grad():
        for p in again.parameters():
            p.mul_(1.5)
    assert largest_difference(classifier(z_t, t), before) == 0 and largest_difference(again(z_t, t), before) > 0.01
    assert largest_difference(again.prepare(times)[0](z_t), again(z_t, times.expand(len(z_t)))) < 1e-12


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"trunk": "separate", "components": 3},
            "`trunk` must be .*, and shared with components=3 > 1, got 'separate'",
        ),
        ({"trunk": "none"}, "`trunk` must be one of shared, separate, .* got 'none'"),
    ],
)
def test_unfit_trunks_are_refused(schema: Schema, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeConditionedClassifier((4,), schema, **options)
