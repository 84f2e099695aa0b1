"""Sampling batch after batch with static memory: on a GPU one CUDA graph is the whole path, launched at once.

A guided step is a few hundred kernels of some microseconds each. Launched one by one they wait for the host; recorded
once, with all steps of the path, they run back to back. What a graph needs is what makes a path a pure function: one
number of rows (batches are padded to the next of a few), no look at a value on the way, and all randomness drawn
beforehand, from the generators of the rows as ever, so that samples do not depend on how they were run.

On a CPU the same is done without a graph; that is how it is tested where there is no GPU.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.noise import Drawn, Randomness, randn
from lcg.diffusion.process import Denoiser
from lcg.diffusion.samplers.base import Sampler

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Numbers of rows that batches are padded to."""


class StaticSampling:
    """`sampler.sample` of one denoiser, for many batches of noise.

    Args:
        sampler: that draws the same number of times for every sample, or never (`Sampler.draws`).
        denoiser: plain or guided; the same for all batches, whose rows it treats alike.

    Raises:
        ValueError: a sampler that may draw more or less often; while sampling, latents that are not finite.
    """

    def __init__(self, sampler: Sampler, denoiser: Denoiser) -> None:
        if sampler.draws is None:
            raise ValueError(
                f"`sampler` must know how often it draws noise, got {type(sampler).__name__}; use its own `sample`"
            )
        self.sampler, self.denoiser, self.draws = sampler, denoiser, sampler.draws
        patient: Callable[[], Denoiser] | None = getattr(denoiser, "patient", None)
        self._running = denoiser if patient is None else patient()
        self._recorded: dict[Any, Recorded] = {}

    @torch.no_grad()
    def sample(self, z: Float[Tensor, "batch *latent"], generator: Randomness = None) -> Float[Tensor, "batch *latent"]:
        """A clean latent for every row of noise z (B, *latent); see `Sampler.sample`."""
        rows = next((bucket for bucket in BUCKETS if bucket >= len(z)), len(z))
        noise = [randn(z.shape, generator, dtype=z.dtype, device=z.device) for _ in range(self.draws)]
        key = (rows, z.shape[1:], z.dtype, z.device)
        if key not in self._recorded:
            self._recorded[key] = Recorded(self.sampler, self._running, z.new_zeros(rows, *z.shape[1:]), self.draws)
        z_0 = self._recorded[key].run(z, noise)
        if not bool(torch.isfinite(z_0).all()):
            finite = torch.isfinite(z_0).flatten(1).all(1)
            self.sampler.solve(self.sampler.path(self.denoiser, self.sampler.grid(z)), z, Drawn(noise), None)
            raise ValueError(
                f"the sampled latents must be finite, got others in row {int((~finite).nonzero()[0])}; "
                "check the networks' weights"
            )
        return z_0


class Recorded:
    """A path for one number of rows, with the memory that it reads and writes.

    Args:
        sampler: of the path.
        denoiser: looks at no values.
        z: (B, *latent) of zeros, where the noise at the start will be.
        draws: how often the sampler draws.
    """

    def __init__(self, sampler: Sampler, denoiser: Denoiser, z: Tensor, draws: int) -> None:
        self.sampler, self.z, self.noise = sampler, z, [torch.zeros_like(z) for _ in range(draws)]
        self.path = sampler.path(denoiser, sampler.grid(z))
        self.graph: torch.cuda.CUDAGraph | None = None
        if z.device.type == "cuda":
            self._record()

    def _solve(self) -> Tensor:
        return self.sampler.solve(self.path, self.z, Drawn(self.noise), None)

    def _record(self) -> None:
        """Runs the path once as it is, which prepares whatever is prepared on first use, and once for the record."""
        aside = torch.cuda.Stream(self.z.device)
        aside.wait_stream(torch.cuda.current_stream(self.z.device))
        with torch.cuda.stream(aside):
            self._solve()
        torch.cuda.current_stream(self.z.device).wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.z_0 = self._solve()

    def run(self, z: Tensor, noise: list[Tensor]) -> Tensor:
        """The latents that belong to these rows; rows of the last batch pad them."""
        for own, given in zip((self.z, *self.noise), (z, *noise), strict=True):
            own[: len(z)].copy_(given)
        if self.graph is None:
            return self._solve()[: len(z)].clone()
        self.graph.replay()
        return self.z_0[: len(z)].clone()
