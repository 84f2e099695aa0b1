import pytest
import torch
from torch import Tensor, nn

from lcg.nets.heads import log_likelihoods
from lcg.nets.latent_classifier import LatentClassifier
from lcg.schema import Schema


def net(schema: Schema, latent: tuple[int, ...] = (4,), hidden: tuple[int, ...] = (8, 6)) -> LatentClassifier:
    torch.manual_seed(0)
    return LatentClassifier(latent, schema, hidden).double()


def latents(*latent: int, n: int = 6) -> Tensor:
    return torch.randn(n, *latent, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("hidden", [(), (5,), (8, 6, 7)])
def test_each_attribute_has_a_perceptron_of_its_own(schema: Schema, hidden: tuple[int, ...]) -> None:
    """The batched evaluation is that of ordinary layers, one attribute after another."""
    classifier, z = net(schema, hidden=hidden), latents(4)
    outputs = classifier(z)
    for a, attribute in enumerate(schema):
        parts: list[nn.Module] = []
        for layer in classifier.layers:
            linear = nn.Linear(*layer.weight.shape[1:]).double()
            linear.weight.data, linear.bias.data = layer.weight.data[a].T, layer.bias.data[a, 0]
            parts += [linear, nn.LeakyReLU(0.2)]
        expected = nn.Sequential(*parts[:-1])(z)[:, : attribute.outputs]
        found = outputs[attribute.name]
        assert found.shape == ((6,) if attribute.kind == "binary" else (6, attribute.outputs))
        torch.testing.assert_close(found.reshape(6, -1), expected, rtol=1e-12, atol=1e-12)


def test_the_defaults_are_laces(schema: Schema) -> None:
    layers = LatentClassifier((4,), schema).layers
    assert [tuple(layer.weight.shape) for layer in layers] == [(4, 4, 384), (4, 384, 256), (4, 256, 128), (4, 128, 3)]


def test_attributes_share_nothing(schema: Schema) -> None:
    """What is learnt of one leaves the others as they are."""
    classifier, z = net(schema), latents(4)
    labels = torch.full((6, 4), torch.nan, dtype=torch.float64)
    labels[:, 0] = 1
    log_likelihoods(schema, classifier(z), labels).sum().backward()
    for layer in classifier.layers:
        assert layer.weight.grad[0].abs().max() > 0 and layer.weight.grad[1:].abs().max() == 0


def test_latents_of_any_shape_are_flattened_inside(schema: Schema) -> None:
    z = latents(2, 2)
    flat, shaped = net(schema)(z.flatten(1)), net(schema, (2, 2))(z)
    assert all(torch.equal(flat[name], shaped[name]) for name in schema.names)


def test_rows_are_independent(schema: Schema) -> None:
    classifier, z = net(schema), latents(4)
    whole = classifier(z)
    for i in range(len(z)):
        for name, output in classifier(z[i : i + 1]).items():
            torch.testing.assert_close(output, whole[name][i : i + 1], rtol=1e-12, atol=1e-12)


def test_a_part_of_it_answers_as_the_whole(schema: Schema) -> None:
    classifier, z = net(schema).requires_grad_(False).eval(), latents(4)
    whole = classifier(z)
    for names in (["beard"], ["age", "hat"], ["beard", "hair"]):
        part = classifier.restricted(names)
        assert set(part.schema.names) == set(names) and not part.training
        assert not any(p.requires_grad for p in part.parameters())
        found = part(z)
        for name in names:
            torch.testing.assert_close(found[name], whole[name], rtol=1e-12, atol=1e-12)
    assert classifier.restricted(["beard"]).layers[-1].weight.shape[-1] == 1  # no more outputs than it needs
    with pytest.raises(ValueError, match="unknown attribute 'bread'; did you mean 'beard'"):
        classifier.restricted(["bread"])


def test_taking_a_part_draws_nothing_and_shares_nothing(schema: Schema) -> None:
    classifier, state = net(schema), torch.get_rng_state()
    part = classifier.restricted(["beard"])
    assert torch.equal(state, torch.get_rng_state())
    for layer in part.layers:
        layer.weight.data.zero_()
    assert all(bool(layer.weight.any()) for layer in classifier.layers)
    assert all(p.requires_grad and p.dtype == torch.float64 for p in part.parameters())


def test_latents_are_left_as_they_are(schema: Schema) -> None:
    for hidden in ((), (8, 6)):
        z = latents(4)
        net(schema, hidden=hidden)(z)
        assert torch.equal(z, latents(4))


def test_its_config_builds_it_again(schema: Schema) -> None:
    classifier, z = net(schema), latents(4)
    config = classifier.config
    again = LatentClassifier(
        **{**config, "latent_shape": tuple(config["latent_shape"]), "schema": Schema.from_dict(config["schema"])}
    ).double()
    again.load_state_dict(classifier.state_dict())
    assert again.schema == schema and again.slope == classifier.slope
    assert all(torch.equal(again(z)[name], classifier(z)[name]) for name in schema.names)


def test_latents_of_another_store_are_refused(schema: Schema) -> None:
    with pytest.raises(ValueError, match=r"trained on latents of shape \(4,\), got \(2, 2\); use the classifier"):
        net(schema)(latents(2, 2))


def test_layers_without_units_are_refused(schema: Schema) -> None:
    with pytest.raises(ValueError, match=r"`hidden` must be at least 1 unit per layer, got \[8, 0\]; leave the layer"):
        LatentClassifier((4,), schema, (8, 0))
