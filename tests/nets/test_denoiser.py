"""The latent denoiser starts as an exact one, and its loss is that of what it predicts."""

import pytest
import torch
from torch import Tensor

from lcg.diffusion import (
    ConstantSchedule,
    CosineSchedule,
    Denoiser,
    GaussianDenoiser,
    LinearSchedule,
    coefficients,
    diffuse,
    v_from_eps,
)
from lcg.nets.denoiser import LatentDenoiser, logit_normal_times, make_schedule, stratified_times


def batch(*latent: int, n: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """z_0, t, eps."""
    generator = torch.Generator().manual_seed(0)
    z_0, eps = torch.randn(2, n, *latent, dtype=torch.float64, generator=generator)
    return z_0, 0.05 + 0.9 * torch.rand(n, dtype=torch.float64, generator=generator), eps


def net(prediction: str = "v", schedule: str = "cosine", latent: tuple[int, ...] = (4,)) -> LatentDenoiser:
    """A net whose output is not zero any more."""
    torch.manual_seed(0)
    denoiser = LatentDenoiser(latent, width=8, depth=2, prediction=prediction, schedule=schedule).double().eval()
    for layer in (denoiser.net.output, *(block.modulation for block in denoiser.net.blocks)):
        torch.nn.init.normal_(layer.weight)
    return denoiser


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_new_denoiser_is_exact_for_standard_normal_latents(schedule: str) -> None:
    denoiser = LatentDenoiser((4,), width=8, depth=2, schedule=schedule).double()
    exact = GaussianDenoiser(torch.zeros(4).double(), torch.eye(4).double(), make_schedule(schedule))
    z_t, t, _ = batch(4)
    torch.testing.assert_close(denoiser(z_t, t), exact(z_t, t), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_eps_hat_is_that_of_the_prediction(schedule: str) -> None:
    z_t, t, _ = batch(4)
    on_eps, on_v = net("eps", schedule), net("v", schedule)
    assert torch.equal(on_eps(z_t, t), on_eps.predict(z_t, t))
    recovered = v_from_eps(on_v.schedule, z_t, t, on_v(z_t, t))
    torch.testing.assert_close(recovered, on_v.predict(z_t, t), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_loss_is_the_mean_squared_error_per_row(schedule: str) -> None:
    z_0, t, eps = batch(2, 3)
    on_eps, on_v = (net(prediction, schedule, (2, 3)) for prediction in ("eps", "v"))
    z_t = diffuse(on_eps.schedule, z_0, t, eps)
    error = (on_eps(z_t, t) - eps).square().flatten(1).mean(1)
    torch.testing.assert_close(on_eps.loss(z_0, t, eps), error, rtol=1e-12, atol=0)
    alpha, _ = coefficients(on_v.schedule, t, t)  # an error of v is an error of eps divided by alpha
    error = (on_v(z_t, t) - eps).square().flatten(1).mean(1) / alpha**2
    torch.testing.assert_close(on_v.loss(z_0, t, eps), error, rtol=1e-9, atol=0)


def test_latents_of_any_shape_are_flattened_inside() -> None:
    z_t, t, _ = batch(2, 2)
    flat, shaped = net(), net(latent=(2, 2))
    assert isinstance(shaped, Denoiser)
    assert torch.equal(shaped(z_t, t), flat(z_t.flatten(1), t).view_as(z_t))


def test_rows_are_independent() -> None:
    denoiser, (z_t, t, _) = net(), batch(4)
    rows = [denoiser(z_t[i : i + 1], t[i : i + 1]) for i in range(len(z_t))]
    torch.testing.assert_close(torch.cat(rows), denoiser(z_t, t), rtol=1e-12, atol=1e-13)


def test_under_autocast_the_prediction_has_the_precision_of_the_state() -> None:
    denoiser, (z_t, t, _) = net().float(), batch(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert denoiser(z_t.float(), t).dtype == torch.float32


def test_its_config_builds_it_again() -> None:
    denoiser = net("eps", "linear", (2, 2))
    again = LatentDenoiser(**{**denoiser.config, "latent_shape": tuple(denoiser.config["latent_shape"])}).double()
    again.load_state_dict(denoiser.state_dict())
    z_t, t, _ = batch(2, 2)
    assert torch.equal(again.eval()(z_t, t), denoiser(z_t, t))


def test_latents_of_another_prior_are_refused() -> None:
    z_t, t, _ = batch(5)
    with pytest.raises(ValueError, match=r"trained on latents of shape \(4,\), got \(5,\); use the prior.*this store"):
        net()(z_t, t)


def test_unknown_names_are_refused(unchecked: None) -> None:
    with pytest.raises(ValueError, match="`prediction` must be one of eps, v, got 'x0'"):
        LatentDenoiser((4,), prediction="x0")
    with pytest.raises(ValueError, match="`schedule` must be one of cosine, linear, constant, got 'sigmoid'"):
        LatentDenoiser((4,), schedule="sigmoid")
    with pytest.raises(ValueError, match="`layers` must be one of residual, concat, got 'dense'"):
        LatentDenoiser((4,), layers="dense")


def test_schedules_by_name() -> None:
    kinds = {"cosine": CosineSchedule, "linear": LinearSchedule, "constant": ConstantSchedule}
    assert all(type(make_schedule(name)) is kind for name, kind in kinds.items())


def test_stratified_times_fall_into_every_interval_once() -> None:
    t = stratified_times(1000, torch.Generator().manual_seed(0))
    assert t.shape == (1000,) and t.min() >= 0 and t.max() < 1
    assert torch.equal((t.double() * 1000).floor().long(), torch.arange(1000))
    assert torch.equal(t, stratified_times(1000, torch.Generator().manual_seed(0)))


def test_logit_normal_times_have_a_normal_logit() -> None:
    t = logit_normal_times(4000, 0.8, torch.Generator().manual_seed(0))
    logit = torch.logit(t.double())
    assert abs(logit.mean()) < 1e-3 and abs(logit.std() - 0.8) < 2e-3 and bool(((t > 0) & (t < 1)).all())
    with pytest.raises(ValueError, match="`spread` must be positive, got 0"):
        logit_normal_times(4, 0.0)
