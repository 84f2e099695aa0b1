"""Checks of `decode`: what it returns, whether that depends on its latent alone, and whether there is a way back.

Gradients are compared with central differences along random directions u,

    u . grad f(z) = (f(z + h u) - f(z - h u)) / 2h + O(h^2),      f(z) = v . decode(z).
"""

from __future__ import annotations

import torch
from torch import Tensor

from lcg.generators.trial import TOLERANCE, Doubtful, Trial, Wrong, distance, expect

OVERSHOOT = 1e-3
"""How far beyond [-1, 1] rounding may carry a pixel."""
SLOPE_TOLERANCE = 0.1
"""The relative error of a gradient against a finite difference in float32 that counts as agreement."""
ROUNDING = 1e-7
"""Error of f in float32, which the division by h enlarges; of an image that is saturated, the slope is no larger."""


def check_decode(trial: Trial) -> str:
    """Shape of its output, for several latents and for one."""
    advice = "Let `decode` return images (B, *image_shape), channels first, or correct `image_shape`."
    expect(trial.x, (trial.rows, *trial.generator.image_shape), "decode", advice)
    try:
        single = trial.decode(trial.z[:1])
    except (RuntimeError, ValueError) as error:
        raise Wrong(
            f"decodes {trial.rows} latents, but not one: {error}",
            "Let `decode` take a batch of any size: give no fixed size to .view, and hold batch normalisation in eval "
            "mode by registering the network as a submodule.",
        ) from error
    expect(single, (1, *trial.generator.image_shape), "decode of one latent", advice)
    return str(tuple(trial.x.shape))


def check_decode_type(trial: Trial) -> str:
    """float32, where the weights are."""
    dtype, device = trial.x.dtype, trial.x.device
    if dtype == torch.uint8:
        raise Wrong(str(dtype), "Return float32 images in [-1, 1] from `decode` instead of pixels: x / 127.5 - 1.")
    if dtype != torch.float32:
        raise Wrong(str(dtype), "Convert the output of `decode` with .float(); networks inside may keep their type.")
    if device != trial.generator.device:
        raise Wrong(str(device), f"Keep tensors on the device of the weights, {trial.generator.device}, in `decode`.")
    return f"{dtype}, {device}"


def check_decode_finite(trial: Trial) -> str:
    """No NaN, no infinity, neither among usual latents nor further out."""
    broken = ~trial.x_wide.isfinite().flatten(1).all(1)
    if broken.any():
        usual = int(broken[: trial.rows].sum())
        raise Wrong(
            f"{usual} of {trial.rows} usual latents, {int(broken.sum()) - usual} of {trial.rows + 2} others fail",
            "Find what divides by zero, takes a root or logarithm of a negative number, or overflows in `decode`, and "
            "bound it (.clamp, + 1e-8, float32): guidance visits latents far out and zero.",
        )
    return f"{len(broken)} latents"


def check_decode_range(trial: Trial) -> str:
    """[-1, 1], and not [0, 1]."""
    low, high = float(trial.x_wide.min()), float(trial.x_wide.max())
    figure = f"[{low:.3f}, {high:.3f}]"
    if low >= 0 and high > 2:
        raise Wrong(figure, "Pixels look like [0, 255]: return x / 127.5 - 1 from `decode`.")
    if low >= 0 and high > 0:
        raise Wrong(
            figure, "No pixel is darker than mid-grey, so they look like [0, 1]: return 2 * x - 1 from `decode`."
        )
    if low < -1 - OVERSHOOT or high > 1 + OVERSHOOT:
        raise Wrong(figure, "Return x.clamp(-1, 1) from `decode`, or scale the network's output to [-1, 1] first.")
    return figure


def check_decode_determinism(trial: Trial) -> str:
    """Equal images of equal latents, whatever was drawn elsewhere, and torch's random state left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.seed + 1)  # such a state as nothing in `decode` has left
        before = torch.get_rng_state()
        difference = distance(trial.decode(trial.z), trial.x)
        drew = not torch.equal(before, torch.get_rng_state())
    if difference > TOLERANCE:
        raise Wrong(
            f"{difference:.2g} between two calls",
            "Take what is random out of `decode`: fix its noise in a buffer, put dropout into eval mode (registered "
            "submodules are), or make the noise a part of the latent.",
        )
    if drew:
        raise Doubtful(
            "torch's random state has changed",
            "Draw from a torch.Generator of its own in `decode`, or not at all; to seed or advance torch's own changes "
            "what everybody else draws.",
        )
    return f"{difference:.2g} between two calls"


def check_decode_independence(trial: Trial) -> str:
    """An image depends on its latent alone, not on its place or its neighbours."""
    alone = torch.cat([trial.decode(row) for row in trial.z.split(1)])
    reverse = trial.decode(trial.z.flip(0)).flip(0)
    difference = max(distance(alone, trial.x), distance(reverse, trial.x))
    if difference > TOLERANCE:
        raise Wrong(
            f"{difference:.2g} between a row alone and in a batch",
            "Let no operation in `decode` mix rows: batch normalisation in eval mode (register the network as a "
            "submodule), no mean over the batch, no noise drawn per place.",
        )
    return f"{difference:.2g} between a row alone and in a batch"


def check_gradient(trial: Trial) -> str:
    """d decode / d z exists, is finite and nowhere zero."""
    gradient = slope(trial)
    if not bool(gradient.isfinite().all()):
        raise Wrong(
            "NaN or infinite", "Avoid roots and norms at zero in `decode`, where their slope is infinite: x + 1e-8."
        )
    least = float(gradient.flatten(1).norm(dim=1).min())
    if least == 0:
        raise Wrong(
            "zero for some latent",
            "Let `decode` be smooth: rounding, argmax and a clamp that all pixels exceed have no gradient.",
        )
    return f"norm >= {least:.2g}"


def weight_of(trial: Trial) -> Tensor:
    """v, such that f(z) = v . decode(z) has the size of a pixel."""
    return trial.draw(*trial.x.shape, seed=1) / trial.x[0].numel() ** 0.5


def slope(trial: Trial) -> Tensor:
    """Gradient of f with respect to z. Raises Wrong where there is none."""
    with torch.enable_grad():
        z = trial.z.clone().requires_grad_()
        x = trial.generator.decode(z)
        gradient = (
            torch.autograd.grad((weight_of(trial) * x).sum(), z, allow_unused=True)[0] if x.requires_grad else None
        )
    if gradient is None:
        raise Wrong(
            "decode(z) does not depend on z for autograd",
            "Remove torch.no_grad, inference_mode, .detach(), .data and numpy from `decode`; whoever wants no gradient "
            "says so outside.",
        )
    return gradient


@torch.no_grad()
def check_slope(trial: Trial) -> str:
    """The gradient agrees with a central difference, at the step that suits the arithmetic best."""
    weight, u = weight_of(trial), trial.draw(*trial.z.shape, seed=2) * trial.scale
    along = (slope(trial) * u).flatten(1).sum(1).double()

    def f(z: Tensor) -> Tensor:
        return (weight * trial.generator.decode(z)).flatten(1).double().sum(1)

    def error_of(h: float) -> float:
        measured = (f(trial.z + h * u) - f(trial.z - h * u)) / (2 * h)
        noise = ROUNDING / h * trial.rows**0.5
        return float((measured - along).norm()) / max(float(measured.norm()), noise / SLOPE_TOLERANCE)

    error = min(error_of(h) for h in (1e-1, 1e-2, 1e-3))
    if not error <= SLOPE_TOLERANCE and getattr(trial.generator, "straight_through", False):
        raise Doubtful(
            f"relative error {error:.2g}, straight through a quantiser",
            "Expect edits through the pixels to be coarse: the gradient is that of a decoder that does not quantise.",
        )
    if not error <= SLOPE_TOLERANCE:
        raise Wrong(
            f"relative error {error:.2g}",
            "Let every path from z to the image carry its gradient: look for a .detach(), a torch.no_grad or a custom "
            "autograd function on one of them.",
        )
    return f"relative error {error:.2g}"
