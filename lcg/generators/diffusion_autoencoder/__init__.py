"""The diffusion autoencoder of Preechakul et al. 2022 (arXiv:2111.15640) as a generator; see `autoencoder`."""

from lcg.generators.diffusion_autoencoder.autoencoder import DiffusionAutoencoder, SavedDiffusionAutoencoder
from lcg.generators.diffusion_autoencoder.networks import Architecture

__all__ = ["Architecture", "DiffusionAutoencoder", "SavedDiffusionAutoencoder"]
