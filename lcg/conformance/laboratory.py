"""Where checks are made: the worlds, exact samples of every target, made once, and the comparison with them.

Every random number depends on the seed and on the name of what it is for, so that a check gives the same value alone,
in the suite, and in any order.
"""

import zlib
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from lcg.conformance import catalogue
from lcg.conformance.distances import moment_errors, sliced_wasserstein, total_variation, total_variation_floor
from lcg.conformance.outcome import Expected, Measurement
from lcg.conformance.worlds import Probit, World
from lcg.diffusion.schedule import LinearSchedule

FULL_SAMPLES = 20_000
BINS = 16


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Args:
        samples: of each sampler.
        reference: exact samples that they are compared with.
        systems: independent ones of each particle method.
        particles: in each of them.
        latents: at which scores and probabilities are compared.
    """

    samples: int = FULL_SAMPLES
    reference: int = 100_000
    systems: int = 64
    particles: int = 320
    latents: int = 256

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 2:
                raise ValueError(f"`{name}` must be at least 2, got {value}")


FULL = Sizes()
QUICK = Sizes(samples=2_400, reference=24_000, systems=32, particles=96, latents=64)


class Laboratory:
    """Worlds by name, and the truth about them at hand.

    Args:
        sizes: how much is measured.
        seed: of all random numbers.
    """

    def __init__(self, sizes: Sizes = FULL, seed: int = 0) -> None:
        self.sizes, self.seed = sizes, seed
        self.worlds: dict[str, World] = {
            "line": catalogue.line(),
            "line mixture": catalogue.line_mixture(),
            "plane": catalogue.plane(),
            "plane, linear": catalogue.plane(LinearSchedule()),
            "latent class 16": catalogue.latent_class(16),
            "latent class 64": catalogue.latent_class(64),
            "cloud 8": catalogue.cloud(8),
            **{f"modes {seed}": catalogue.modes(seed=seed) for seed in range(4)},
        }
        self._references: dict[tuple[str, str, float], Tensor] = {}

    def generator(self, *purpose: object) -> torch.Generator:
        """A generator for this purpose alone."""
        return torch.Generator().manual_seed(zlib.crc32(repr((self.seed, *purpose)).encode()))

    def noise(self, world: str, n: int | None = None) -> Tensor:
        """Standard normal latents (n, D), float64."""
        shape = (n or self.sizes.samples, self.worlds[world].dim)
        return torch.randn(shape, generator=self.generator("noise", world), dtype=torch.float64)

    def exact(self, world: str, formula: str | None, weight: float, n: int, generator: torch.Generator) -> Tensor:
        """n exact samples of p(z_0) P(formula | z_0)^weight, or of the prior."""
        if formula is None:
            return self.worlds[world].sample(n, generator)
        return self.worlds[world].conditional(formula, n, generator, weight)

    def reference(self, world: str, formula: str | None = None, weight: float = 1.0) -> Tensor:
        """The exact samples that others are compared with (M, D)."""
        key = world, str(formula), weight
        if key not in self._references:
            generator = self.generator("reference", *key)
            self._references[key] = self.exact(world, formula, weight, self.sizes.reference, generator)
        return self._references[key]

    def axes(self, world: str) -> Tensor:
        """Where histograms are taken (D, 1 or 2): the directions that the world's first two attributes look in."""
        w = self.worlds[world]
        directions = [a.direction for a in w.attributes.values() if isinstance(a, Probit)][: min(w.dim, 2)]
        return torch.linalg.qr(torch.tensor(directions, dtype=torch.float64).T).Q

    def allowed(self, bound: float, n: int) -> float:
        """A bound on the total variation of `FULL_SAMPLES` samples, made wider for fewer by what chance adds."""
        excess = total_variation_floor(n, BINS) - total_variation_floor(FULL_SAMPLES, BINS)
        return bound + 1.5 * max(excess, 0.0)

    def compare(
        self,
        samples: Tensor,
        world: str,
        formula: str | None = None,
        weight: float = 1.0,
        bound: float = 0.02,
        expected: Expected = "right",
    ) -> list[Measurement]:
        """How far samples are from the target: by total variation, sliced Wasserstein distance and moments.

        Args:
            samples: (n, D).
            world: its name.
            formula: what the target is conditioned on; None for the prior.
            weight: of the formula.
            bound: on the total variation of `FULL_SAMPLES` samples; lengths may be twice it, in standard deviations.
            expected: for a negative control, the total variation alone is measured.
        """
        n, reference = len(samples), self.reference(world, formula, weight)
        other = self.exact(world, formula, weight, n, self.generator("floor", world, formula, weight, n))
        axes = self.axes(world)
        value, floor = (total_variation(x, reference, axes, BINS) for x in (samples, other))
        if expected == "wrong":
            return [Measurement("total variation", value, bound, floor, n, "wrong", POWERLESS)]
        allowed = self.allowed(bound, n)
        found = [Measurement("total variation", value, allowed, floor, n)]
        value, floor = (sliced_wasserstein(x, reference) for x in (samples, other))
        found.append(Measurement("sliced Wasserstein", value, 2 * allowed, floor, n))
        if samples.shape[1] > 2:  # where histograms see little of the space
            for name, value, floor in zip(
                MOMENTS, moment_errors(samples, reference), moment_errors(other, reference), strict=True
            ):
                found.append(Measurement(name, value, bound + 2 * floor, floor, n))
        return found


MOMENTS = ("largest error of a mean", "largest error of a covariance")
POWERLESS = "a negative control came out right: the suite cannot tell right from wrong here"
