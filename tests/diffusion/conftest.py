"""Exact models to test against, small and seeded; and a way to the errors that run-time type checks would forestall."""

import jaxtyping
import pytest
import torch

from lcg.diffusion import CosineSchedule, GaussianDenoiser, LinearSchedule, MixtureDenoiser, Schedule


@pytest.fixture(params=[CosineSchedule(), LinearSchedule()], ids=["cosine", "linear"])
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return request.param


@pytest.fixture
def gaussian(schedule: Schedule) -> GaussianDenoiser:
    """A correlated Gaussian in four dimensions, standard deviations 0.4 to 1.5, off centre."""
    generator = torch.Generator().manual_seed(1)
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator)).Q
    std = torch.tensor([0.4, 0.7, 1.0, 1.5], dtype=torch.float64)
    mean = torch.randn(4, dtype=torch.float64, generator=generator)
    return GaussianDenoiser(mean, basis * std.square() @ basis.T, schedule)


@pytest.fixture
def mixture(schedule: Schedule) -> MixtureDenoiser:
    """Three overlapping correlated Gaussians in two dimensions, weights 0.5, 0.3, 0.2."""
    factors = torch.tensor([[[0.5, 0.0], [0.2, 0.3]], [[0.3, 0.0], [-0.3, 0.4]], [[0.6, 0.0], [0.0, 0.2]]])
    return MixtureDenoiser(
        torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log(),
        torch.tensor([[1.0, 0.5], [-1.0, 0.8], [0.0, -1.2]], dtype=torch.float64),
        (factors @ factors.mT).double(),
        schedule,
    )


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users run without jaxtyping's checks: the package's own errors must be there when those are off."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
