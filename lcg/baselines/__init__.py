"""Other methods behind lcg's own contracts, so that the benchmark is one loop."""

from lcg.baselines.latent_arithmetic import LatentArithmetic

__all__ = ["LatentArithmetic"]
