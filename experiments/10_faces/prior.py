"""The prior of z is N(0, I) by construction of the GAN: how far from it is the one that was learnt of its samples?

For N(0, I) everything is known: the best prediction of the noise is eps_hat = sigma_t z_t, and the covariance of n
exact draws has eigenvalues within (1 -+ sqrt(D / n))^2 (Marchenko and Pastur 1967). Both are put beside what was
learnt, as is the Frechet distance of n samples to N(0, I), of which exact draws have some themselves.

    python experiments/10_faces/prior.py
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import lcg
from lcg.generators.faces import FaceDCGAN
from lcg.metrics.frechet import frechet_distance, moments

SAMPLES = 4096
FOLDER = "runs/faces"


def to_normal(z: Tensor) -> float:
    """Frechet distance of latents (N, D) to N(0, I)."""
    mean, covariance = moments(z)
    dimension = z.shape[1]
    return float(frechet_distance(mean, covariance, torch.zeros_like(mean), torch.eye(dimension).to(mean)))


def main(folder: str = FOLDER) -> None:
    """Prints a table."""
    prior, classifier = f"{folder}/prior/prior.ckpt", f"{folder}/classifier/classifier.ckpt"
    pipeline = lcg.load(prior, classifier, FaceDCGAN())
    random, denoiser = torch.Generator().manual_seed(0), pipeline.denoiser
    z_t = torch.randn(SAMPLES, *denoiser.latent_shape, generator=random)
    print("| t | error of eps_hat, relative to sigma_t z_t |\n|---|---|")
    for time in (0.1, 0.3, 0.5, 0.7, 0.9):
        t = torch.full((SAMPLES,), time)
        exact = denoiser.schedule.sigma(t)[:, None] * z_t
        with torch.no_grad():
            error = (denoiser(z_t, t) - exact).norm() / exact.norm()
        print(f"| {time} | {float(error):.4f} |")
    learnt = pipeline.statistics.restore(pipeline.sample(range(SAMPLES)))
    drawn = FaceDCGAN().sample_latents(SAMPLES, random)
    low, high = ((1 + sign * math.sqrt(learnt.shape[1] / SAMPLES)) ** 2 for sign in (-1, 1))
    print(
        "\n| latents | mean square | eigenvalues of the covariance | Fréchet distance to N(0, I) |\n|---|---|---|---|"
    )
    for name, z in (("of the prior learnt", learnt), ("exact draws", drawn)):
        values = torch.linalg.eigvalsh(torch.cov(z.T))
        spread = f"{float(values[0]):.3f} to {float(values[-1]):.3f}"
        print(f"| {name} | {float(z.square().mean()):.4f} | {spread} | {to_normal(z):.3f} |")
    print(f"\nexpected of {SAMPLES} exact draws: eigenvalues {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
