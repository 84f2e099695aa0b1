"""Potentials whose gradients are paths through latent space, and the wave equation that they shall obey.

    z_{t+1} = z_t + grad_z u_k(z_t, t),      u_tt = c_k^2 laplacian_z u,      grad_z u_k(z_0, 0) = 0

(Song, Keller, Sebe & Welling 2023, "Latent Traversals in Generative Models as Potential Flows", ICML,
arXiv:2304.12944). Each potential u_k is a perceptron of latent and time that is trained to solve the wave equation, as
physics-informed networks are, with a speed c_k of its own that is learnt too. A path starts at rest, follows a velocity
that has no rotation, and depends on place and time, where linear directions depend on neither.

The perceptron is that of the authors' release,

    u = w_3 . tanh(W_2 (tanh(W_1 z + b_1) + tau(t)) + b_2) + b_3,
    tau(t) = V_2 gelu(V_1 [sin(w t); cos(w t)] + d_1) + d_2,

of the latent's width, with the frequencies w of transformers and whole numbers t = 0, 1, ... for the steps.

Two departures. The release has the sum of each row of u's Hessian in the place of the Laplacian, a vector; here it is
the trace, as the wave equation says. It is summed exactly, or estimated from random directions v by v . H v (Hutchinson
1990), whose expectation it is for E[v v^T] = I. And all potentials are kept in one tensor per layer, so that a batch is
of all of them, where the release draws one potential a batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.nets.blocks import Door

Potential = Callable[[Tensor, Tensor], Tensor]
"""u(z, t) -> (B,), whose row i depends on row i of z (B, *latent) and t (B,) only."""


def velocity(
    u: Potential, z: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch *latent"]:
    """grad_z u; with a graph where gradients are enabled, and detached where they are not."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        z = _leaf(z)
        grad = _gradient(u(z, t), z)
    return grad if keep else grad.detach()


def acceleration(
    u: Potential, z: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """u_tt, the second derivative by time; graph as for `velocity`."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        t = _leaf(t.clone())  # of its own memory: an expanded scalar has one derivative for all rows
        u_tt = _gradient(_gradient(u(z, t), t), t)
    return u_tt if keep else u_tt.detach()


def curvature(
    u: Potential,
    z: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    directions: Float[Tensor, "directions batch *latent"],
) -> Float[Tensor, "directions batch"]:
    """v . H v for the Hessian H of u in z and each direction v; graph as for `velocity`."""
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        z = _leaf(z)
        u_z = _gradient(u(z, t), z)
        along = [(v * _gradient((v * u_z), z)).flatten(1).sum(1) for v in directions]
    curvatures = torch.stack(along)
    return curvatures if keep else curvatures.detach()


def laplacian(
    u: Potential,
    z: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    probes: Float[Tensor, "probes batch *latent"] | None = None,
) -> Float[Tensor, " batch"]:
    """The trace of the Hessian of u in z.

    Args:
        u: the potential.
        z: (B, *latent) where.
        t: (B,) when.
        probes: directions whose mean curvature is the estimate, such as `signs` gives; None for the exact trace, at the
            price of a second derivative for every coordinate.

    Returns:
        (B,).
    """
    if probes is not None:
        return curvature(u, z, t, probes).mean(0)
    basis = torch.eye(z[0].numel(), dtype=z.dtype, device=z.device).reshape(-1, 1, *z.shape[1:])
    return curvature(u, z, t, basis.expand(-1, *z.shape)).sum(0)


def wave_residual(
    u: Potential,
    z: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    speed: float | Tensor,
    probes: Float[Tensor, "probes batch *latent"] | None = None,
) -> Float[Tensor, " batch"]:
    """u_tt - c^2 laplacian u, zero for a wave of speed c; `probes` as for `laplacian`, `speed` one or one per row."""
    return acceleration(u, z, t) - speed**2 * laplacian(u, z, t, probes)


def squared_wave_residual(
    u: Potential,
    z: Float[Tensor, "batch *latent"],
    t: Float[Tensor, " batch"],
    speed: float | Tensor,
    probes: Float[Tensor, "2 batch *latent"],
) -> Float[Tensor, " batch"]:
    """An unbiased estimate of the squared residual: the product of two, each with a probe of its own.

    The square of one estimate would have the variance of the probe on top, and training would flatten the potential to
    be rid of it.
    """
    u_tt, curvatures = acceleration(u, z, t), curvature(u, z, t, probes)
    return (u_tt - speed**2 * curvatures).prod(0)


def signs(
    shape: Sequence[int], generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Float[Tensor, "..."]:
    """Random numbers -1 and 1, the probes of least variance. Drawn on the CPU where a generator is given."""
    drawn_on = device if generator is None else generator.device
    return (2 * torch.randint(2, tuple(shape), generator=generator, device=drawn_on) - 1).float().to(device)


def traverse(
    field: Callable[[Tensor, int], Tensor],
    z_0: Float[Tensor, "batch *latent"],
    steps: int,
    length: float | Tensor = 1.0,
) -> list[Float[Tensor, "batch *latent"]]:
    """z_{t+1} = z_t + length * field(z_t, t) for t = 0 ... steps - 1.

    Args:
        field: the velocity at a step.
        z_0: (B, *latent) where the path starts.
        steps: of the path.
        length: of a step, to be multiplied with latents; 1 is the authors' in training.

    Returns:
        The path [z_0, ..., z_steps].
    """
    path = [z_0]
    for step in range(steps):
        path.append(path[-1] + length * field(path[-1], step))
    return path


class PotentialFlow(nn.Module):
    """`count` potentials over latents; see the module.

    Args:
        latent_shape: shape of one standardised latent.
        count: how many potentials.
        width: hidden width, at least 4 and even; the latent's size (or what is near it) when None, as the authors'.
        steps: of a path, at least 2; the authors train half of their 10 (autoencoders) or 20 (GANs) time steps.
        bounded: tanh of the potential too, as the authors have it but for StyleGAN2's W, whose paths it leaves too
            short. Standardised latents are about as wide as those, so it is off by default.
        atoms: what each potential was trained to raise, such as `glasses` or `hair=blond`; empty when nobody told.

    Raises:
        ValueError: a number is out of range, or there is not one atom per potential.
    """

    frequency: Tensor

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        count: int,
        width: int | None = None,
        steps: int = 5,
        bounded: bool = False,
        atoms: Sequence[str] = (),
    ) -> None:
        super().__init__()
        size = math.prod(latent_shape)
        width = max(4, size + size % 2) if width is None else width
        if width < 4 or width % 2:
            raise ValueError(f"`width` must be even and at least 4, got {width}; the authors take that of the latent")
        for name, value, least in (("count", count, 1), ("steps", steps, 2)):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, got {value}")
        if len(atoms) not in (0, count):
            raise ValueError(f"`atoms` must name what each of {count} potentials raises, or nothing, got {len(atoms)}")
        self.config: dict[str, Any] = {
            "latent_shape": list(latent_shape),
            "count": count,
            "width": width,
            "steps": steps,
            "bounded": bounded,
            "atoms": list(atoms),
        }
        self.latent_shape, self.count, self.steps, self.bounded = tuple(latent_shape), count, steps, bounded
        self.atoms = tuple(atoms)
        frequency = torch.exp(torch.linspace(0, -math.log(10_000), width // 2))
        self.register_buffer("frequency", frequency, persistent=False)
        self.speed = nn.Parameter(torch.ones(count))
        self.door = Door()
        self.input, self.fusion = LinearBank(count, size, width), LinearBank(count, width, width)
        self.time_1, self.time_2 = LinearBank(count, width, width), LinearBank(count, width, width)
        self.output = LinearBank(count, width, 1)

    def potential(
        self, z: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"], k: int | Sequence[int]
    ) -> Float[Tensor, " batch"]:
        """u_k(z, t).

        Args:
            z: (B, *latent) where.
            t: (B,) when, in steps, 0 <= t < `steps`.
            k: which potential; of M of them, the rows are M equal blocks, each for one.

        Raises:
            ValueError: latents of another shape, no such potential, or rows that are not equal blocks.
        """
        z, which = self.door(z), self._which(z, k)
        blocks, rows = len(which), len(z) // len(which)
        # Where all times are one, by expanding a scalar, their features are computed once.
        time = t[:1].expand(blocks, 1) if t.stride(0) == 0 else t.reshape(blocks, rows)
        angle = time[..., None] * self.frequency
        time = functional.gelu(self.time_1(torch.cat((angle.sin(), angle.cos()), dim=-1), which))
        h = self.input(z.reshape(blocks, rows, math.prod(self.latent_shape)), which).tanh()
        h = self.fusion(h + self.time_2(time, which), which).tanh()
        u = self.output(h, which).flatten()
        return u.tanh() if self.bounded else u

    def velocity(
        self, z: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"], k: int | Sequence[int]
    ) -> Float[Tensor, "batch *latent"]:
        """grad_z u_k, of which a path goes one length a step; see `velocity`. Raises ValueError as `potential`."""
        return velocity(lambda z, t: self.potential(z, t, k), z, t)

    def residual(
        self,
        z: Float[Tensor, "batch *latent"],
        t: Float[Tensor, " batch"],
        k: int | Sequence[int],
        probes: Float[Tensor, "probes batch *latent"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """u_tt - c_k^2 laplacian u_k, exact or estimated; see `wave_residual`. Raises ValueError as `potential`."""
        return wave_residual(lambda z, t: self.potential(z, t, k), z, t, self._speeds(z, k), probes)

    def squared_residual(
        self,
        z: Float[Tensor, "batch *latent"],
        t: Float[Tensor, " batch"],
        k: int | Sequence[int],
        probes: Float[Tensor, "2 batch *latent"],
    ) -> Float[Tensor, " batch"]:
        """An unbiased estimate of its square; see `squared_wave_residual`. Raises ValueError as `potential`."""
        return squared_wave_residual(lambda z, t: self.potential(z, t, k), z, t, self._speeds(z, k), probes)

    def _speeds(self, z: Tensor, k: int | Sequence[int]) -> Tensor:
        which = self._which(z, k)
        return self.speed[which].repeat_interleave(len(z) // len(which))

    def _which(self, z: Tensor, k: int | Sequence[int]) -> list[int]:
        chosen = [k] if isinstance(k, int) else list(k)
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"the potentials were made for latents of shape {self.latent_shape}, got {tuple(z.shape[1:])}; "
                "use those that were fitted on this store"
            )
        if not chosen or not all(0 <= one < self.count for one in chosen):
            raise ValueError(f"`k` must be of 0 to {self.count - 1}, got {k}")
        if len(z) % len(chosen):
            raise ValueError(f"`z` must be {len(chosen)} equal blocks of rows, one per potential, got {len(z)} rows")
        return chosen


class LinearBank(nn.Module):
    """As many linear layers, each for its own rows: x_k W_k + b_k, initialised as torch does.

    Args:
        count: how many.
        inputs: of each.
        outputs: of each.
    """

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "blocks rows inputs"], which: list[int]) -> Float[Tensor, "blocks rows outputs"]:
        """The layers `which` of a block of rows each."""
        if which == list(range(len(self.weight))):  # training is of all of them, and need not copy
            return torch.baddbmm(self.bias, x, self.weight)
        return torch.baddbmm(self.bias[which], x, self.weight[which])


def _leaf(x: Tensor) -> Tensor:
    """x as something to differentiate by, with its graph where it has one."""
    return x if x.requires_grad else x.detach().requires_grad_()


def _gradient(value: Tensor, by: Tensor) -> Tensor:
    """The gradient of the sum of a value, to be differentiated again; zero where the value is a constant."""
    if not value.requires_grad:
        return torch.zeros_like(by)
    (grad,) = torch.autograd.grad(value.sum(), by, create_graph=True, materialize_grads=True)
    return grad
