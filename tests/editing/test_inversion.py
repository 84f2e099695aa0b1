"""Inversion against closed forms: least squares and ridge regression for a linear generator; hollows; avatars."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from lcg.data.avatars import AvatarSource
from lcg.data.statistics import Statistics
from lcg.editing.inversion import Inversion, invert, pixel_distance
from lcg.generators.autoencoder import AvatarAutoencoder
from lcg.generators.base import Generator, pixels_to_x

STATISTICS = Statistics(torch.tensor([0.3, -0.2, 0.5]), torch.tensor([0.5, 2.0, 1.0]))


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Linear(Generator):
    """x = A z + b, with 12 pixels and 3 latents."""

    latent_shape, image_shape = (3,), (3, 2, 2)

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(3, 12).double()
        with torch.no_grad():
            self.map.weight.copy_(0.1 * numbers(12, 3))
            self.map.bias.copy_(0.05 * numbers(12, seed=1))

    def decode(self, z: Tensor) -> Tensor:
        return self.map(z).unflatten(1, self.image_shape)


class Encoding(Linear):
    """With an encoder that is off by 0.1."""

    def encode(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - self.map.bias) @ torch.linalg.pinv(self.map.weight).T + 0.1


class Drawing(Linear):
    """With a prior: N(5, 0.1^2)."""

    def sample_latents(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return 5 + 0.1 * torch.randn(n, 3, generator=generator, dtype=torch.float64)


class Wavy(Generator):
    """Every pixel is a slope with waves on it, so that descent from 0 is caught in the first hollow."""

    latent_shape, image_shape = (1,), (3, 1, 1)

    def decode(self, z: Tensor) -> Tensor:
        return (0.2 * z + 0.08 * torch.sin(8 * z))[:, :, None, None].expand(-1, 3, 1, 1)


def images(n: int = 4, seed: int = 2) -> Tensor:
    """No latent has exactly these."""
    return (0.3 * numbers(n, 3, 2, 2, seed=seed)).clamp(-1, 1)


def least_squares(generator: Linear, x: Tensor) -> Tensor:
    return torch.linalg.lstsq(generator.map.weight, (x.flatten(1) - generator.map.bias).T).solution.T


def root_mean_square(generator: Generator, z: Tensor, x: Tensor) -> Tensor:
    return ((generator.decode(z) - x) / 2).flatten(1).square().mean(1).sqrt()


# --- closed forms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statistics", [None, STATISTICS])
def test_descent_on_a_linear_generator_ends_at_least_squares(statistics: Statistics | None) -> None:
    generator, x = Linear(), images()
    found, exact = invert(generator, x, "optimise", statistics=statistics, patience=500), least_squares(Linear(), x)
    assert (found.z - exact).abs().max() < 1e-3
    assert (found.error - root_mean_square(generator, exact, x)).abs().max() < 1e-6


def test_the_prior_s_weight_makes_it_ridge_regression_in_standardised_units() -> None:
    """argmin mean ((A (mean + std z_0) + b - x) / 2)^2 + w mean z_0^2."""
    generator, x, w = Linear(), images(), 0.01
    found = invert(generator, x, "optimise", statistics=STATISTICS, prior_weight=w, patience=500, steps=800)
    a = generator.map.weight.detach() * STATISTICS.std.double()
    rest = x.flatten(1) - generator.map(STATISTICS.mean.double()).detach()
    exact = torch.linalg.solve(a.T @ a / 4 / 12 + w * torch.eye(3, dtype=torch.float64) / 3, a.T @ rest.T / 4 / 12).T
    assert (STATISTICS.standardise(found.z) - exact).abs().max() < 1e-3
    far = STATISTICS.standardise(least_squares(generator, x))
    assert (exact.norm(dim=1) < 0.8 * far.norm(dim=1)).all()  # the weight matters


def test_the_encoder_answers_by_itself_and_is_refined_where_asked() -> None:
    generator, x = Encoding(), images()
    by_encoder, both = invert(generator, x, "encoder"), invert(generator, x, "both", patience=500)
    assert (by_encoder.z - generator.encode(x)).abs().max() < 1e-12 and by_encoder.steps.tolist() == [0, 0, 0, 0]
    assert (by_encoder.error - root_mean_square(generator, by_encoder.z, x)).abs().max() < 1e-12
    assert not by_encoder.converged.any() and (both.error < by_encoder.error).all()
    assert (both.z - least_squares(generator, x)).abs().max() < 1e-3
    assert invert(generator, x, "encoder", tolerance=0.5).converged.all()


def test_auto_is_the_encoder_where_there_is_one_and_else_descent() -> None:
    x = images()
    assert (invert(Encoding(), x).z - Encoding().encode(x)).abs().max() < 1e-12
    found, expected = invert(Linear(), x, steps=20), invert(Linear(), x, "optimise", steps=20)
    assert (found.z - expected.z).abs().max() < 1e-12 and (found.steps == 20).all()


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_row_does_not_depend_on_its_batch() -> None:
    generator, x = Linear(), torch.cat([images(), Linear().decode(numbers(3, 3, seed=5)).detach()])
    options = {"statistics": STATISTICS, "steps": 80, "patience": 10, "candidates": 0.3 * numbers(7, 3)}
    together = invert(generator, x, "optimise", **options)
    assert len(set(together.steps.tolist())) > 1  # rows that stop at different times
    in_twos = invert(generator, x, "optimise", batch_size=2, **options)
    for i in range(len(x)):
        for other in (invert(generator, x[i : i + 1], "optimise", **options), _rows(in_twos, i)):
            assert (other.z[0] - together.z[i]).abs().max() < 1e-9 and other.steps[0] == together.steps[i]
            assert (other.error[0] - together.error[i]).abs() < 1e-9 and other.converged[0] == together.converged[i]


def _rows(inversion: Inversion, i: int) -> Inversion:
    return Inversion(*(getattr(inversion, name)[i : i + 1] for name in ("z", "error", "steps", "converged")))


def test_a_row_stops_when_it_is_good_enough() -> None:
    generator = Linear()
    x = torch.cat([generator.decode(STATISTICS.mean.double()[None]).detach(), images(1)])
    found = invert(generator, x, "optimise", statistics=STATISTICS, noise=0.0, patience=500, steps=50)
    assert found.steps.tolist() == [0, 50] and found.converged.tolist() == [True, False]
    assert found.error[0] < 1e-7 and (found.z[0] - STATISTICS.mean).abs().max() < 1e-7
    loose = invert(generator, x, "optimise", statistics=STATISTICS, noise=0.0, patience=500, tolerance=0.12)
    assert 0 < loose.steps[1] < 50 and 0.1 < loose.error[1] <= 0.12 and loose.converged.all()


def test_a_row_stops_when_it_gets_no_better() -> None:
    """And not while there is noise, when the loss says little."""
    quiet, noisy = (invert(Linear(), images(), "optimise", patience=30, noise=noise) for noise in (0.0, 1.0))
    assert quiet.converged.all() and (quiet.steps < 300).all() and (quiet.error > 0.05).all()
    assert noisy.converged.all() and (noisy.steps >= 375 + 30).all()


def test_the_best_is_kept() -> None:
    generator, x = Encoding(), images()
    start = invert(generator, x, "encoder")
    thrown = invert(generator, x, "both", lr=100.0, steps=5)  # every step leads away
    assert (thrown.z - start.z).abs().max() < 1e-12 and (thrown.error - start.error).abs().max() < 1e-12
    assert (thrown.steps == 5).all()


# --- starts -----------------------------------------------------------------------------------------------------------


def test_every_row_starts_from_its_nearest_candidate() -> None:
    generator, z = Linear(), numbers(3, 3, seed=4)
    x = generator.decode(z).detach().clamp(-1, 1)
    found = invert(generator, x, "optimise", candidates=torch.cat([numbers(5, 3), z.flip(0)]), noise=0.0)
    assert (found.z - z).abs().max() < 1e-12 and found.steps.tolist() == [0, 0, 0]


def test_a_candidate_that_is_worse_than_the_mean_or_the_encoder_s_answer_is_left() -> None:
    x, far = images(), torch.full((1, 3), 9.0, dtype=torch.float64)
    for how in ("optimise", "both"):
        with_far, without = (invert(Encoding(), x, how, candidates=c, steps=5) for c in (far, 0))
        assert (with_far.z - without.z).abs().max() < 1e-12


def test_without_statistics_the_generator_s_prior_gives_mean_and_deviation() -> None:
    start = invert(Drawing(), images(), "optimise", steps=1, lr=1e-9, noise=0.0)
    assert (start.z - 5).abs().max() < 0.01  # the mean of 10,000 samples
    step = invert(Drawing(), images(), "optimise", steps=1, lr=1.0, noise=0.0).z - start.z
    assert (step.abs() - 0.1).abs().max() < 0.01  # Adam's first step is one step size, in deviations
    again, other = (invert(Drawing(), images(), "optimise", candidates=9, seed=s, steps=1).z for s in (0, 1))
    assert (again - invert(Drawing(), images(), "optimise", candidates=9, steps=1).z).abs().max() < 1e-9
    assert (again - other).abs().max() > 1e-3


def test_noise_leads_out_of_hollows() -> None:
    x = Wavy().decode(torch.linspace(1.5, 3.5, 9, dtype=torch.float64)[:, None])
    caught, free = (invert(Wavy(), x, "optimise", noise=noise) for noise in (0.0, 2.0))
    assert (caught.error > 0.05).all() and (free.error < 0.02).all()


# --- what may be given ------------------------------------------------------------------------------------------------


def test_another_distance_is_descended_and_the_error_stays_that_of_the_pixels() -> None:
    generator, x = Linear(), images()

    def every_fourth(x_hat: Tensor, x: Tensor) -> Tensor:
        return pixel_distance(x_hat.flatten(1)[:, 3::4], x.flatten(1)[:, 3::4])

    found = invert(generator, x, "optimise", distance=every_fourth, lr=0.3, patience=500)
    assert ((generator.decode(found.z) - x).flatten(1)[:, 3::4].abs() < 0.02).all()  # three latents fit three pixels
    assert (found.error - root_mean_square(generator, found.z, x)).abs().max() < 1e-12
    assert (found.error > 1.05 * root_mean_square(generator, least_squares(generator, x), x)).all()


def test_the_error_is_a_fraction_of_the_range_of_a_pixel() -> None:
    black, white = -torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    assert pixel_distance(black, white).sqrt().tolist() == [1, 1] and pixel_distance(black, black).tolist() == [0, 0]


def test_progress_counts_the_steps_of_all_batches() -> None:
    told: list[tuple[int, int]] = []
    invert(Linear(), images(5), "optimise", steps=10, batch_size=2, progress=lambda *step: told.append(step))
    assert told == [(k, 30) for k in range(1, 31)]
    told.clear()
    invert(
        Linear(), images(5), "optimise", steps=40, patience=3, noise=0.0, lr=1e-9, progress=lambda *s: told.append(s)
    )
    assert all(a[0] < b[0] for a, b in pairwise(told)) and len(told) == 4 and told[-1] == (40, 40)
    told.clear()
    invert(Encoding(), images(5), "encoder", steps=10, batch_size=2, progress=lambda *step: told.append(step))
    assert told == [(10, 30), (20, 30), (30, 30)]


def test_the_generator_stays_as_it_is() -> None:
    generator = Encoding().train()
    before = [p.clone() for p in generator.parameters()]
    with torch.no_grad():  # as callers do; gradients are taken all the same
        found = invert(generator, images(), "both", steps=3)
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(generator.parameters(), before, strict=True))
    assert not generator.training and not found.z.requires_grad and not found.error.requires_grad


def test_images_take_the_generator_s_precision() -> None:
    found = invert(Encoding(), images().float(), "both", steps=3)
    assert found.z.dtype == found.error.dtype == torch.float64


def test_on_the_embedded_generator_descent_refines_the_encoder_s_answer() -> None:
    generator = AvatarAutoencoder()
    x = generator.decode(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)))
    encoder, both = invert(generator, x), invert(generator, x, "both", steps=30, lr=0.05)
    assert (both.error < 0.95 * encoder.error).all() and both.error.mean() < 0.7 * encoder.error.mean()


@pytest.mark.slow
def test_on_avatars_descent_refines_the_encoder_s_answer_and_alone_needs_the_noise() -> None:
    generator = AvatarAutoencoder()
    x = pixels_to_x(torch.from_numpy(AvatarSource("uniform", 2, split="inversion").chunk(0, 2)[0]))
    encoder, both = invert(generator, x), invert(generator, x, "both", steps=200)
    assert (encoder.error < 0.01).all() and (both.error < 0.95 * encoder.error).all()
    caught, free = (
        float(invert(generator, x, "optimise", noise=noise, steps=300).error.mean()) for noise in (0.0, 2.0)
    )
    assert free < 0.7 * caught


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_wrong_images_are_refused() -> None:
    for x in (torch.zeros(2, 3, 4, 4), torch.zeros(3, 2, 2), torch.zeros(0, 3, 2, 2)):
        with pytest.raises(ValueError, match=r"`x` must be images of shape \(B, 3, 2, 2\), got .*; crop and resize"):
            invert(Linear(), x)
    with pytest.raises(TypeError, match=r"`x` must be float32 or float64 in \[-1, 1\], got torch.uint8; .*pixels_to_x"):
        invert(Linear(), torch.zeros(2, 3, 2, 2, dtype=torch.uint8))
    for value, shown in ((1.5, "0 to 1.5"), (math.nan, "nan to nan"), (-math.inf, "-inf to 0")):
        x = torch.zeros(1, 3, 2, 2)
        x[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match=rf"`x` must be in \[-1, 1\], got values from {shown}"):
            invert(Linear(), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "guess"}, "`how` must be one of auto, encoder, optimise, both, got 'guess'"),
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"patience": 0}, "`patience` must be at least 1, got 0"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"lr": 0.0}, "`lr` must be finite and > 0, got 0.0"),
        ({"lr": math.nan}, "`lr` must be finite and > 0, got nan"),
        ({"tolerance": -0.1}, "`tolerance` must be finite and >= 0, got -0.1"),
        ({"prior_weight": -1.0}, "`prior_weight` must be finite and >= 0, got -1.0"),
        ({"noise": math.inf}, "`noise` must be finite and >= 0, got inf"),
        ({"gain": 1.0}, r"`gain` must be in \[0, 1\), got 1.0"),
        ({"candidates": -1}, "`candidates` must be raw latents or a number >= 0, got -1"),
        ({"candidates": torch.zeros(5, 4)}, r"`candidates` must be raw latents \(N, 3\), got shape \(5, 4\)"),
        ({"candidates": torch.zeros(0, 3)}, r"`candidates` must be raw latents \(N, 3\), got shape \(0, 3\)"),
        ({"statistics": Statistics(torch.zeros(4), torch.ones(4))}, r"of latents of shape \(3,\), got \(4,\)"),
        ({"distance": lambda x_hat, x: (x_hat - x).square().mean()}, r"one number per image, \(4,\), got shape \(\)"),
        ({"distance": lambda x_hat, x: pixel_distance(x_hat, x) * math.nan}, "the loss must be finite, got nan"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        invert(Linear(), images(), **options)


def test_what_a_generator_lacks_is_said() -> None:
    for how in ("encoder", "both"):
        with pytest.raises(NotImplementedError, match=f"Linear has no encoder, which `how`='{how}' asks for; use how="):
            invert(Linear(), images(), how)
    with pytest.raises(NotImplementedError, match="Linear has no prior of its own"):
        invert(Linear(), images(), candidates=3)


def test_descent_needs_gradients() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match="descent needs gradients"):
        invert(Linear(), images())
    with torch.inference_mode():
        assert invert(Encoding(), images()).error.isfinite().all()
