import pytest
import torch
from torch import Tensor

from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.heads import log_likelihoods
from lcg.schema import Schema


def net(schema: Schema, latent: tuple[int, ...] = (4,)) -> TimeConditionedClassifier:
    torch.manual_seed(0)
    classifier = TimeConditionedClassifier(latent, schema, width=8, depth=2).double().eval()
    torch.nn.init.normal_(classifier.net.output.weight)
    return classifier


def batch(*latent: int, n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(n, *latent, dtype=torch.float64, generator=generator),
        torch.rand(n, dtype=torch.float64, generator=generator),
    )


def test_a_new_classifier_knows_nothing(schema: Schema) -> None:
    """Even probabilities and a standard normal: guidance by it has no gradient."""
    outputs = TimeConditionedClassifier((4,), schema).double()(*batch(4))
    assert all(not output.any() for output in outputs.values())


def test_outputs_are_by_attribute(schema: Schema) -> None:
    outputs = net(schema)(*batch(4))
    assert {name: tuple(output.shape) for name, output in outputs.items()} == {
        "hat": (6,),
        "hair": (6, 3),
        "age": (6, 2),
        "beard": (6,),
    }


def test_latents_of_any_shape_are_flattened_inside(schema: Schema) -> None:
    z_t, t = batch(2, 2)
    flat, shaped = net(schema)(z_t.flatten(1), t), net(schema, (2, 2))(z_t, t)
    assert all(torch.equal(flat[name], shaped[name]) for name in schema.names)


def test_rows_are_independent_also_in_their_gradients(schema: Schema) -> None:
    classifier, (z_t, t) = net(schema), batch(4)
    labels = torch.tensor([[1, 2, 0.3, 0]], dtype=torch.float64).expand(len(z_t), 4)

    def gradient(rows: slice) -> Tensor:
        z = z_t[rows].clone().requires_grad_()
        (grad,) = torch.autograd.grad(log_likelihoods(schema, classifier(z, t[rows]), labels[rows]).sum(), z)
        return grad

    whole = gradient(slice(None))
    assert whole.abs().min() > 0
    for i in range(len(z_t)):
        torch.testing.assert_close(gradient(slice(i, i + 1)), whole[i : i + 1], rtol=1e-11, atol=1e-12)


def test_its_config_builds_it_again(schema: Schema) -> None:
    classifier, (z_t, t) = net(schema), batch(4)
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
