"""Checks of what a generator is beside `decode`: shapes, weights, identity, and the optional encoder and prior."""

from __future__ import annotations

import json

import torch

from lcg.generators.base import weights_sha256
from lcg.generators.trial import TOLERANCE, Doubtful, Trial, Wrong, distance, expect

POOR = 0.05
"""The round trip's root mean square error, of at most 1, that no encoder is warned of."""


def check_latent_shape(trial: Trial) -> str:
    """A tuple of positive numbers."""
    shape = getattr(trial.generator, "latent_shape", None)
    if not isinstance(shape, tuple) or not shape or not all(type(size) is int and size > 0 for size in shape):
        raise Wrong(repr(shape), "Set `self.latent_shape` to a tuple of positive integers without the batch: (512,).")
    return str(shape)


def check_image_shape(trial: Trial) -> str:
    """(3, H, W)."""
    shape = getattr(trial.generator, "image_shape", None)
    whole = isinstance(shape, tuple) and len(shape) == 3 and all(type(size) is int and size > 0 for size in shape)
    if not whole or shape[0] != 3:  # type: ignore[index] # a tuple of three then
        raise Wrong(repr(shape), "Set `self.image_shape` to (3, height, width), a tuple of integers; images are RGB.")
    return str(shape)


def check_frozen(trial: Trial) -> str:
    """`eval` and `requires_grad_(False)` reach every submodule; both have been called."""
    training = [name or "itself" for name, module in trial.generator.named_modules() if module.training]
    if training:
        raise Wrong(
            f"{training[0]} is in training mode", "Let `train` of the generator pass the mode on to all submodules."
        )
    if learning := [name for name, parameter in trial.generator.named_parameters() if parameter.requires_grad]:
        raise Wrong(f"{learning[0]} wants a gradient", "Do not override `requires_grad_`, which freezes all weights.")
    tensors = len(list(trial.generator.parameters())) + len(list(trial.generator.buffers()))
    if not tensors:
        raise Doubtful(
            "no weights are registered",
            "Assign the network as `self.network = ...`, not in a list or a dictionary, and call super().__init__() "
            "before, so that devices, modes and the identity reach its weights.",
        )
    return f"{tensors} weights and buffers, frozen"


def check_encode(trial: Trial) -> str:
    """Shape, type, place and finiteness of latents of images."""
    z = trial.encoded
    expect(
        z,
        (len(trial.source), *trial.generator.latent_shape),
        "encode",
        "Let `encode` return latents (B, *latent_shape), such as decode takes, or correct `latent_shape`.",
    )
    if z.dtype != torch.float32 or z.device != trial.generator.device:
        raise Wrong(f"{z.dtype}, {z.device}", "Return float32 latents from `encode`, on the device of the weights.")
    if not bool(z.isfinite().all()):
        raise Wrong("NaN or infinite", "Find what divides by zero or overflows in `encode` and bound it.")
    return f"{tuple(z.shape)}, standard deviation {float(z.std()):.2g}"


def check_encode_determinism(trial: Trial) -> str:
    """Equal latents of equal images, alone, in a batch and in another order."""
    z, scale = trial.encoded, float(trial.encoded.std()) or 1.0
    alone = torch.cat([trial.encode(row) for row in trial.source.split(1)])
    calls = [trial.encode(trial.source), alone, trial.encode(trial.source.flip(0)).flip(0)]
    difference = max(distance(call, z) for call in calls) / scale
    if difference > TOLERANCE:
        raise Wrong(
            f"{difference:.2g} standard deviations",
            "Let `encode` return the mean of its posterior instead of a sample, with dropout and batch normalisation "
            "in eval mode: a store holds one latent for an image.",
        )
    return f"{difference:.2g} standard deviations"


def check_round_trip(trial: Trial) -> str:
    """decode(encode(x)) against x; a warning at most, since a generator may be lossy.

    An encoder is good enough if it leaves no more than half of what the mean image would.
    """
    x = trial.source
    error = float(((trial.decode(trial.encoded) - x) / 2).square().mean().sqrt())
    spread = float(((x - x.mean(0)) / 2).square().mean().sqrt())
    figure = f"root mean square error {error:.3f} of at most 1; the mean image's is {spread:.3f}"
    if not error <= max(POOR, spread / 2):
        raise Doubtful(
            figure,
            "Edits of given images will show others: check that encode and decode use one scale of latents and pixels, "
            "and crop images as in training, or edit with --inversion.how both.",
        )
    return figure


def check_sample_latents(trial: Trial) -> str:
    """Shape, and that its torch.Generator alone decides: the same gives the same, another something else."""
    first = trial.sample(trial.seed)
    shape = (trial.rows, *trial.generator.latent_shape)
    expect(first, shape, "sample_latents", "Let `sample_latents(n)` return (n, *latent_shape).")
    if first.dtype != torch.float32 or not bool(first.isfinite().all()):
        raise Wrong(f"{first.dtype}", "Return finite float32 latents from `sample_latents`.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed + 1)
        before = torch.get_rng_state()
        again, other = trial.sample(trial.seed), trial.sample(trial.seed + 1)
        drew = not torch.equal(before, torch.get_rng_state())
    if not torch.equal(first, again) or drew or torch.equal(first, other):
        raise Wrong(
            "not decided by its torch.Generator",
            "Pass it on to everything that draws in `sample_latents`: torch.randn(..., generator=generator), on the "
            "generator's device.",
        )
    return f"{tuple(first.shape)}, standard deviation {float(first.std()):.2g}"


def check_identity(trial: Trial) -> str:
    """JSON with the hash of the weights, equal for another that was built alike."""
    identity = trial.generator.identity()
    try:
        same = json.loads(json.dumps(identity, allow_nan=False)) == identity
    except (TypeError, ValueError) as error:
        raise Wrong(
            str(error), "Return JSON primitives from `identity`: text, numbers, lists, dictionaries."
        ) from error
    if not same:
        raise Wrong("changes on its way through JSON", "Use lists for tuples and text for keys in `identity`.")
    if identity.get("weights_sha256") != trial.weights:
        raise Wrong(
            "weights_sha256 is not that of the weights",
            "Start `identity` with {**super().identity(), ...}: stores tell generators apart by it.",
        )
    if trial.build is None:
        return trial.weights[:12]
    if trial.build().identity() != identity:
        raise Wrong(
            "differs between two constructions",
            "Load all weights in the constructor, or draw them from a fixed seed, and keep times, paths of temporary "
            "files and addresses out of `identity`.",
        )
    return f"{trial.weights[:12]}, twice"


def check_unchanged(trial: Trial) -> str:
    """All of the above has left weights and buffers as they were."""
    if weights_sha256(trial.generator) != trial.weights:
        raise Wrong(
            "weights or buffers have changed",
            "Write to no parameter or buffer in `decode`, `encode` or `sample_latents`; running statistics of batch "
            "normalisation stay where the network is in eval mode.",
        )
    return "as they were"
