"""Any number of samples of a pipeline, drawn in chunks by any number of ranks."""

from lcg.generation.many import generate_many, read_latents

__all__ = ["generate_many", "read_latents"]
