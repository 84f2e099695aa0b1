"""The conditional denoiser: exact at the start, one network for all subsets of labels, and every label has its own."""

import pytest
import torch
from torch import Tensor

from lcg.checkpoint import build
from lcg.diffusion import CosineSchedule, Denoiser, GaussianDenoiser, diffuse
from lcg.nets.conditional import ConditionalDenoiser, drop_labels
from lcg.schema import Schema

NAN = float("nan")


def batch(*latent: int, n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """z_0, t, eps."""
    generator = torch.Generator().manual_seed(0)
    z_0, eps = torch.randn(2, n, *latent, dtype=torch.float64, generator=generator)
    return z_0, 0.05 + 0.9 * torch.rand(n, dtype=torch.float64, generator=generator), eps


def net(schema: Schema, prediction: str = "v", latent: tuple[int, ...] = (4,)) -> ConditionalDenoiser:
    """A net whose output is not zero any more."""
    torch.manual_seed(0)
    denoiser = ConditionalDenoiser(latent, schema, width=8, depth=2, prediction=prediction, features=3).double().eval()
    for layer in (denoiser.net.output, *(block.modulation for block in denoiser.net.blocks)):
        torch.nn.init.normal_(layer.weight)
    return denoiser


LABELS = torch.tensor(
    [
        [1.0, NAN, 0.3, 0.0],
        [0.0, 2.0, -1.5, 1.0],
        [NAN, 0.0, NAN, NAN],
        [NAN, NAN, NAN, NAN],
        [1.0, NAN, 2.0, NAN],
        [0.0, 1.0, 0.0, NAN],
    ]
).double()  # hat, hair, age, beard


def test_a_new_denoiser_is_exact_for_standard_normal_latents_whatever_the_labels(schema: Schema) -> None:
    denoiser = ConditionalDenoiser((4,), schema, width=8, depth=2).double()
    exact = GaussianDenoiser(torch.zeros(4).double(), torch.eye(4).double(), CosineSchedule())
    z_t, t, _ = batch(4)
    for labels in (None, LABELS):
        torch.testing.assert_close(denoiser(z_t, t, labels), exact(z_t, t), rtol=1e-12, atol=1e-13)


def test_without_labels_it_is_the_unconditional_denoiser(schema: Schema) -> None:
    denoiser, (z_t, t, _) = net(schema), batch(4)
    assert isinstance(denoiser, Denoiser)
    nothing = torch.full((6, 4), NAN).double()
    torch.testing.assert_close(denoiser(z_t, t), denoiser(z_t, t, nothing), rtol=1e-12, atol=1e-13)
    rows = (denoiser(z_t, t, LABELS) - denoiser(z_t, t)).detach()
    assert float(rows[3].abs().max()) < 1e-12 < 1e-3 < float(rows[[0, 1, 2, 4, 5]].abs().amax(1).min())


def test_every_label_of_every_attribute_has_its_own_score(schema: Schema) -> None:
    """NaN and all values of an attribute differ pairwise, and no two attributes share a row of the table."""
    denoiser, (z_t, t, _) = net(schema), batch(4, n=1)
    given = [torch.full((1, 4), NAN).double()]
    for j, values in enumerate(([0, 1], [0, 1, 2], [-1.0, 0.0, 0.5], [0, 1])):
        for value in values:
            given.append(given[0].clone())
            given[-1][0, j] = value
    scores = torch.cat([denoiser(z_t, t, labels) for labels in given])
    distance = torch.cdist(scores, scores).detach() + 1e3 * torch.eye(len(scores), dtype=torch.float64)
    assert float(distance.min()) > 1e-3


@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_the_loss_is_the_error_of_what_is_predicted_given_the_labels(schema: Schema, prediction: str) -> None:
    denoiser, (z_0, t, eps) = net(schema, prediction, (2, 3)), batch(2, 3)
    z_t = diffuse(denoiser.schedule, z_0, t, eps)
    error = (denoiser(z_t, t, LABELS) - eps).square().flatten(1).mean(1)
    if prediction == "v":
        error = error / denoiser.schedule.alpha(t) ** 2  # an error of v is an error of eps divided by alpha
    torch.testing.assert_close(denoiser.loss(z_0, t, eps, LABELS), error, rtol=1e-9, atol=0)
    assert not torch.allclose(denoiser.loss(z_0, t, eps), error, rtol=1e-3)


def test_rows_are_independent_and_one_row_of_labels_serves_all(schema: Schema) -> None:
    denoiser, (z_t, t, _) = net(schema), batch(4)
    rows = [denoiser(z_t[i : i + 1], t[i : i + 1], LABELS[i : i + 1]) for i in range(len(z_t))]
    torch.testing.assert_close(torch.cat(rows), denoiser(z_t, t, LABELS), rtol=1e-12, atol=1e-13)
    one = denoiser(z_t, t, LABELS[:1])
    torch.testing.assert_close(one, denoiser(z_t, t, LABELS[:1].repeat(6, 1)), rtol=1e-12, atol=1e-13)


def test_continuous_labels_are_standardised(schema: Schema) -> None:
    """Years or centuries: with the standardisation of their own labels both are the same."""
    denoiser, (z_t, t, _) = net(schema), batch(4)
    years = LABELS * torch.tensor([1, 1, 100.0, 1]) + torch.tensor([0, 0, 40.0, 0])
    denoiser.embedding.standardise(LABELS)
    expected = denoiser(z_t, t, LABELS)
    denoiser.embedding.standardise(years)
    torch.testing.assert_close(denoiser(z_t, t, years), expected, rtol=1e-6, atol=1e-7)
    assert not torch.allclose(denoiser(z_t, t, LABELS), expected, atol=1e-3)
    assert torch.equal(denoiser.embedding.center[[0, 1, 3]], torch.zeros(3).double())


def test_under_autocast_the_prediction_has_the_precision_of_the_state(schema: Schema) -> None:
    denoiser, (z_t, t, _) = net(schema).float(), batch(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert denoiser(z_t.float(), t, LABELS.float()).dtype == torch.float32


def test_its_config_builds_it_again(schema: Schema) -> None:
    denoiser = net(schema, "eps", (2, 2))
    denoiser.embedding.standardise(LABELS)
    again = build("conditional_denoiser", denoiser.config).double()
    again.load_state_dict(denoiser.state_dict())
    z_t, t, _ = batch(2, 2)
    assert torch.equal(again.eval()(z_t, t, LABELS), denoiser(z_t, t, LABELS))


def test_what_does_not_fit_is_refused(schema: Schema) -> None:
    denoiser, (z_t, t, _) = net(schema), batch(4)
    with pytest.raises(ValueError, match=r"trained on latents of shape \(4,\), got \(5,\); use the prior.*this store"):
        denoiser(batch(5)[0], t)
    with pytest.raises(ValueError, match="`labels` must have one row or 6, one per latent, got 2"):
        denoiser(z_t, t, LABELS[:2])
    with pytest.raises(ValueError, match="`labels` must have 4 columns, one per attribute of the schema, got 3; mark"):
        denoiser(z_t, t, LABELS[:, :3])
    for j, value, message in (
        (0, 2.0, "binary attribute 'hat' must be one of 0 to 1 or NaN, got 2"),
        (1, 0.5, "categorical attribute 'hair' must be one of 0 to 2 or NaN, got 0.5"),
        (1, -1.0, "categorical attribute 'hair' must be one of 0 to 2 or NaN, got -1"),
        (2, float("inf"), "continuous attribute 'age' must be finite or NaN, got inf; use the schema"),
    ):
        wrong = LABELS.clone()
        wrong[1, j] = value
        with pytest.raises(ValueError, match=f"`labels` of {message}"):
            denoiser(z_t, t, wrong)
    with pytest.raises(ValueError, match="`features` must be at least 1, got 0"):
        ConditionalDenoiser((4,), schema, features=0)


def test_unknown_names_are_refused(schema: Schema, unchecked: None) -> None:
    with pytest.raises(ValueError, match="`prediction` must be one of eps, v, got 'x0'"):
        ConditionalDenoiser((4,), schema, prediction="x0")


# --- dropping labels ---


def test_labels_are_dropped_as_announced() -> None:
    """No label, one, or a uniformly distributed number of them; a known label is never changed."""
    labels, rng = torch.arange(5.0).expand(40_000, 5), torch.Generator().manual_seed(0)
    dropped = drop_labels(labels, 0.1, 0.3, rng)
    known = ~dropped.isnan()
    assert torch.equal(dropped[known], labels[known])
    share = torch.bincount(known.sum(1), minlength=6) / len(labels)
    uniform = torch.full((6,), 0.6 / 6)  # over 0 to 5 labels
    expected = uniform + torch.tensor([0.1, 0.3, 0, 0, 0, 0])
    assert float((share - expected).abs().max()) < 0.01
    alone = known[known.sum(1) == 1].float().mean(0)
    assert float((alone - 0.2).abs().max()) < 0.02  # every attribute is as often alone as any other


def test_the_limits_of_dropping() -> None:
    labels = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    labels[::2, 1] = NAN
    assert bool(drop_labels(labels, 1.0, 0.0).isnan().all())
    single = ~drop_labels(labels, 0.0, 1.0).isnan()
    assert torch.equal(single.sum(1), torch.ones(200, dtype=torch.long))  # one that is known, where some are not
    nothing = torch.full((5, 3), NAN)
    assert bool(drop_labels(nothing, 0.0, 1.0).isnan().all())


def test_attributes_are_dropped_independently_of_each_other_given_the_rate() -> None:
    """Each stays with probability u ~ U(0, 1): two stay together with E[u^2] = 1/3, where one does with 1/2."""
    known = ~drop_labels(torch.zeros(40_000, 4), 0.0, 0.0, torch.Generator().manual_seed(1)).isnan()
    assert abs(float(known[:, 0].float().mean()) - 1 / 2) < 0.01
    assert abs(float((known[:, 0] & known[:, 3]).float().mean()) - 1 / 3) < 0.01


@pytest.mark.parametrize(("unconditional", "single"), [(-0.1, 0.3), (0.2, -0.3), (0.6, 0.5), (NAN, 0.1)])
def test_wrong_shares_are_refused(unconditional: float, single: float) -> None:
    with pytest.raises(ValueError, match=r"must be shares >= 0 that add up to at most 1, got .*; 0\.1 and 0\.3"):
        drop_labels(torch.zeros(2, 3), unconditional, single)
