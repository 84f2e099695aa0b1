"""Predictor and corrector: a DDIM step to the next noise level, then steps of a Markov chain at that level.

    z_s = DDIM step of z_t,        then `steps` times        z_s = z_s + h s(z_s) + sqrt(2 h) xi        (or MALA)

(Song et al. 2021, arXiv:2011.13456, section 4.2 and algorithm 1). The corrector makes sampling right where the score is
that of a known density pi_t, but pi_s is not what the predictor makes of pi_t: sums of classifiers, weights other than
1; see `lcg.diffusion.correctors`. With many levels and several corrector steps this is annealed Langevin dynamics.
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from lcg.diffusion.correctors import Corrector, Langevin
from lcg.diffusion.noise import Randomness
from lcg.diffusion.samplers.base import Progress, Sampler, Spacing
from lcg.diffusion.samplers.ddim import DDIM
from lcg.diffusion.samplers.path import Path
from lcg.diffusion.schedule import Schedule

Monitor = Callable[[float, Tensor], object]
"""Called as monitor(t, acceptance) after the correction at each level; acceptance (B,), see `Correction`."""


class PredictorCorrector(Sampler):
    """DDIM steps, each followed by a corrector at the new level. Other arguments: see `Sampler`.

    `steps` is the number of noise levels. The predictor evaluates the denoiser once at each, and Langevin again
    `corrector.steps` times at each but the first.

    Args:
        clip: of the predictor; the corrector's score is as the denoiser gives it.
        eta: of the predictor, in [0, 1]; see `DDIM`.
        corrector: None for `Langevin()`.
        monitor: called as monitor(t, acceptance (B,)) after each correction.

    Raises:
        ValueError: eta is outside [0, 1], or any reason of `Sampler`.
    """

    def __init__(
        self,
        schedule: Schedule,
        steps: int = 50,
        t_start: float = 0.995,
        t_end: float = 0.001,
        spacing: Spacing = "uniform",
        clip: float | None = None,
        eta: float = 0.0,
        corrector: Corrector | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        super().__init__(schedule, steps, t_start, t_end, spacing, clip)
        self.predictor = DDIM(schedule, steps, t_start, t_end, spacing, clip, eta)
        self.corrector, self.monitor = Langevin() if corrector is None else corrector, monitor

    @property
    def draws(self) -> None:
        return None

    def solve(
        self, path: Path, z: Float[Tensor, "batch *latent"], generator: Randomness, progress: Progress | None
    ) -> Float[Tensor, "batch *latent"]:
        scale = z.new_ones(len(z))
        steps = self.predictor.steps_of(path)
        for i in range(len(path) - 1):
            s = path.times[i + 1]
            z = self.predictor.step(steps[i], *path.predict(z, i), generator)
            correction = self.corrector.correct(self.schedule, path.denoiser, z, s.expand(len(z)), generator, scale)
            z, scale = correction.z_t, self.corrector.rescale(scale, correction.acceptance)
            if self.monitor is not None:
                self.monitor(float(s), correction.acceptance)
            if progress is not None:
                progress(i + 1, len(path))
        z_0_hat, _ = path.predict(z, len(path) - 1)
        if progress is not None:
            progress(len(path), len(path))
        return z_0_hat
