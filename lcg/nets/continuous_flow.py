"""A continuous normalising flow of latents, conditioned on attributes: the network of StyleFlow.

Clean latents become noise as time runs from 0 to T, under the attributes a, and noise becomes latents on the way back:

    dz/dt = f(z, t, a),      z(0) = N_0(z_0),      u = N_1(z(T)) ~ N(0, I)
    log p(z_0 | a) = log N(u; 0, I) + int_0^T div f dt + log |det dN_0| + log |det dN_1|

(Abdal et al. 2021, "StyleFlow: Attribute-conditioned Exploration of StyleGAN-Generated Images using Conditional
Continuous Normalizing Flows", ACM TOG 40(3), arXiv:2008.02401, after Chen et al. 2018, arXiv:1806.07366, and FFJORD,
Grathwohl et al. 2019, arXiv:1810.01367). f is a perceptron with tanh between layers that are gated and shifted by time
and attributes ("concatsquash"),

    x -> (W x + b) * sigmoid(G [t; a] + g) + S [t; a];

N_0 and N_1 are batch norms on running statistics, "moving", and T is learnt. As the authors have it: five hidden layers
of the width of the latent, which is 512 for theirs; Dormand & Prince of order 5 with tolerances of 1e-5.

An ODE whose right-hand side is smooth has one path through every point: whatever the weights, u is a bijection of z_0,
and the way back is the way there.

Where we differ. The divergence comes from derivatives that run forwards with f, layer by layer, instead of a backward
pass through it: exact where all axes are followed, else Hutchinson's v^T J v, the same v along the path, with random
signs v where the authors draw normal numbers (the variance is smaller). Training differentiates through the solver's
steps, which gives the exact gradient of what was computed, where the authors solve the adjoint equation, which saves
memory that is not short here. It may be given a number of Runge-Kutta steps in the place of a tolerance. Rows share an
adaptive solver's steps, each of which keeps every single row within the tolerance, where a mean over rows would let
one hard row drown; so a row depends on its batch within the tolerance.

Attributes are numbers around 0, and 0 is what nobody knows or what does not apply: -1 or 1 for a binary one, a one-hot
vector for a categorical one, and a standardised value for a continuous one (theirs are all continuous, always known).
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.diffusion.noise import Randomness, randn
from lcg.nets.blocks import Door
from lcg.schema import Attribute, Schema

MAX_STEPS = 2000  # of the adaptive solver: a smooth flow takes some dozens


class ConcatSquash(nn.Module):
    """(W x + b) * sigmoid(G [t; a] + g) + S [t; a].

    Args:
        inputs: dimension of x.
        outputs: dimension of the result.
        conditions: dimension of a.
    """

    def __init__(self, inputs: int, outputs: int, conditions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.gate = nn.Linear(1 + conditions, outputs)
        self.shift = nn.Linear(1 + conditions, outputs, bias=False)

    def condition(self, attributes: Float[Tensor, "batch conditions"]) -> tuple[Tensor, Tensor]:
        """G_a a + g and S_a a, (B, outputs) each: what the attributes add, which is the same at all times."""
        gate = functional.linear(attributes, self.gate.weight[:, 1:], self.gate.bias)
        return gate, functional.linear(attributes, self.shift.weight[:, 1:])

    def forward(
        self,
        x: Float[Tensor, "batch inputs"],
        dx: Float[Tensor, "batch directions inputs"],
        t: Tensor,
        condition: tuple[Tensor, Tensor],
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "batch directions outputs"]]:
        """The layer at x and its derivative along directions dx."""
        gate = torch.sigmoid(condition[0] + t * self.gate.weight[:, 0])
        y = torch.addcmul(condition[1] + t * self.shift.weight[:, 0], self.linear(x), gate)
        return y, functional.linear(dx, self.linear.weight) * gate[:, None]


class MovingBatchNorm(nn.Module):
    """y = (x - mean) / sqrt(var + eps) * exp(weight) + bias with running statistics, in training too.

    Each forward pass in training moves the statistics towards those of its batch, after it used them: they are
    constants to the gradient, and the density is that of one and the same bijection for all rows.

    Args:
        size: dimension of x.
        eps: added to the variance.
        decay: how far the statistics move.
    """

    mean: Tensor
    var: Tensor

    def __init__(self, size: int, eps: float = 1e-4, decay: float = 0.1) -> None:
        super().__init__()
        self.eps, self.decay = eps, decay
        self.weight, self.bias = nn.Parameter(torch.zeros(size)), nn.Parameter(torch.zeros(size))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))

    @property
    def log_scale(self) -> Float[Tensor, " size"]:
        """log dy/dx, the same for every x."""
        return self.weight - 0.5 * torch.log(self.var + self.eps)

    def forward(self, x: Float[Tensor, "batch size"]) -> Float[Tensor, "batch size"]:
        y = (x - self.mean) * self.log_scale.exp() + self.bias
        if self.training and len(x) > 1:
            with torch.no_grad():
                self.mean = torch.lerp(self.mean, x.mean(0), self.decay)
                self.var = torch.lerp(self.var, x.var(0), self.decay)
        return y

    def inverse(self, y: Float[Tensor, "batch size"]) -> Float[Tensor, "batch size"]:
        """x of y."""
        return (y - self.bias) * torch.exp(-self.log_scale) + self.mean


class ContinuousFlow(nn.Module):
    """p(z_0 | attributes), see the module.

    Args:
        latent_shape: shape of one standardised latent.
        schema: the attributes.
        hidden: widths of the hidden layers; without any, f is affine in z.
        tolerance: absolute and relative, of the adaptive solver.

    Raises:
        ValueError: a width is not positive, or the tolerance is not.
    """

    label_mean: Tensor
    label_std: Tensor

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        schema: Schema,
        hidden: Sequence[int] = (512, 512, 512, 512, 512),
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__()
        if any(width < 1 for width in hidden):
            raise ValueError(f"`hidden` must be widths of at least 1, got {list(hidden)}; leave a layer out instead")
        if not 0 < tolerance < math.inf:
            raise ValueError(f"`tolerance` must be positive, got {tolerance}; 1e-5 is usual")
        self.config: dict[str, Any] = {
            "latent_shape": list(latent_shape),
            "schema": schema.to_dict(),
            "hidden": list(hidden),
            "tolerance": tolerance,
        }
        self.latent_shape, self.schema, self.tolerance = tuple(latent_shape), schema, tolerance
        self.size, self.conditions = math.prod(latent_shape), sum(_width(attribute) for attribute in schema)
        sizes = (self.size, *hidden, self.size)
        self.door = Door()
        self.layers = nn.ModuleList(ConcatSquash(i, o, self.conditions) for i, o in pairwise(sizes))
        self.first, self.last = MovingBatchNorm(self.size), MovingBatchNorm(self.size)
        self.sqrt_duration = nn.Parameter(torch.ones(()))  # T = its square
        self.register_buffer("label_mean", torch.zeros(len(schema)))
        self.register_buffer("label_std", torch.ones(len(schema)))

    def standardise_labels(self, labels: Float[Tensor, "n attributes"]) -> None:
        """Takes mean and deviation of continuous attributes from labels; of one that never varies, deviation 1."""
        for j, attribute in enumerate(self.schema):
            known = labels[~labels[:, j].isnan(), j].double()
            if attribute.kind == "continuous" and len(known):
                std = known.std(correction=0)
                self.label_mean[j], self.label_std[j] = known.mean(), torch.where(std > 0, std, 1.0)

    def columns(self, name: str) -> slice:
        """Where an attribute stands in the attribute vector. Raises ValueError for an unknown one."""
        widths = [_width(attribute) for attribute in self.schema]
        start = sum(widths[: self.schema.index(name)])
        return slice(start, start + _width(self.schema[name]))

    def encode(self, labels: Float[Tensor, "batch attributes"]) -> Float[Tensor, "batch conditions"]:
        """The attribute vectors of label rows, in the precision of the weights; 0 where a label is missing."""
        known, parts = ~labels.isnan(), []
        labels = labels.nan_to_num(0.0).to(self.label_mean)
        for j, attribute in enumerate(self.schema):
            if attribute.kind == "categorical":
                part = functional.one_hot(labels[:, j].long(), len(attribute.values)).to(labels)
            elif attribute.kind == "binary":
                part = 2 * (labels[:, j : j + 1] > 0.5).to(labels) - 1
            else:
                part = (labels[:, j : j + 1] - self.label_mean[j]) / self.label_std[j]
            parts.append(part * known[:, j : j + 1])
        return torch.cat(parts, dim=1)

    def log_prob(
        self,
        z_0: Float[Tensor, "batch *latent"],
        attributes: Float[Tensor, "batch conditions"],
        probes: int = 0,
        steps: int | None = None,
        generator: Randomness = None,
    ) -> Float[Tensor, " batch"]:
        """log p(z_0 | attributes), in nats; differentiable. In training it moves the batch norms' statistics.

        Args:
            z_0: clean latents.
            attributes: their attribute vectors, as `encode` gives them.
            probes: 0 for the exact divergence, by one derivative for each of the d numbers of a latent; else random
                directions per row, for an unbiased estimate.
            steps: Runge-Kutta steps of order 4 from end to end; None for the adaptive solver.
            generator: of the probes: none, one, or one per row.

        Raises:
            ValueError: latents or attributes of another shape, probes < 0 or steps < 1.
            RuntimeError: the adaptive solver cannot keep its tolerance.
        """
        if probes < 0:
            raise ValueError(f"`probes` must be at least 0, got {probes}; 0 is the exact divergence")
        z = self.first(self._flat(z_0))
        if probes:
            numbers = randn((len(z), probes, self.size), generator, dtype=z.dtype, device=z.device)
            directions = torch.where(numbers < 0, -1.0, 1.0).to(z) / math.sqrt(probes)
        else:
            directions = torch.eye(self.size, dtype=z.dtype, device=z.device).expand(len(z), -1, -1)
        state = self._solve(torch.cat((z, z.new_zeros(len(z), 1)), 1), directions, attributes, (0.0, 1.0), steps)
        u = self.last(state[:, :-1])
        base = -0.5 * (u.square().sum(1) + self.size * math.log(2 * math.pi))
        return (base + state[:, -1] + self.first.log_scale.sum() + self.last.log_scale.sum()).to(z_0.dtype)

    def to_noise(
        self, z_0: Float[Tensor, "batch *latent"], attributes: Float[Tensor, "batch conditions"]
    ) -> Float[Tensor, "batch *latent"]:
        """The noise u that becomes z_0 under these attributes; errors as `log_prob` has them."""
        z = self.first(self._flat(z_0))
        u = self.last(self._solve(z, z.new_zeros(len(z), 0, self.size), attributes, (0.0, 1.0)))
        return u.view_as(z_0).to(z_0.dtype)

    def to_latent(
        self, noise: Float[Tensor, "batch *latent"], attributes: Float[Tensor, "batch conditions"]
    ) -> Float[Tensor, "batch *latent"]:
        """The latent that noise becomes under these attributes; inverts `to_noise`, errors as `log_prob` has them."""
        z = self.last.inverse(self._flat(noise))
        z = self._solve(z, z.new_zeros(len(z), 0, self.size), attributes, (1.0, 0.0))
        return self.first.inverse(z).view_as(noise).to(noise.dtype)

    def _flat(self, z: Tensor) -> Tensor:
        if tuple(z.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"the flow was trained on latents of shape {self.latent_shape}, got {tuple(z.shape[1:])}; "
                "use the flow that was fitted on this store"
            )
        return z.flatten(1).to(self.label_mean)

    def _field(
        self, time: Tensor, z: Tensor, directions: Tensor, conditions: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """T f at t = T time, and its derivatives along the directions (B, P, D)."""
        duration = self.sqrt_duration**2
        h, dh = self.door(z), directions
        for k, (layer, condition) in enumerate(zip(self.layers, conditions, strict=True)):
            if k:
                h = torch.tanh(h)
                dh = dh * (1 - h.square())[:, None]
            h, dh = layer(h, dh, duration * time, condition)
        return duration * h, duration * dh

    def _solve(
        self,
        state: Tensor,
        directions: Tensor,
        attributes: Tensor,
        ends: tuple[float, float],
        steps: int | None = None,
    ) -> Tensor:
        """Integrates z, and behind it the divergence where the state (B, D + 1) has room for it.

        Time is in units of T here, from 0 to 1, so that T is differentiated as any other parameter is.
        """
        from torchdiffeq import odeint  # it imports SciPy's integrators, which would double the package's start-up

        if tuple(attributes.shape) != (len(state), self.conditions):
            raise ValueError(
                f"`attributes` must be {(len(state), self.conditions)}, a vector per latent, "
                f"got {tuple(attributes.shape)}; make them with `encode(labels)`"
            )
        if steps is not None and steps < 1:
            raise ValueError(f"`steps` must be at least 1, got {steps}; None is the adaptive solver")
        if not len(state):
            return state
        attributes = attributes.to(state)
        conditions = [layer.condition(attributes) for layer in cast(Iterable[ConcatSquash], self.layers)]

        def change(time: Tensor, state: Tensor) -> Tensor:
            dz, dh = self._field(time, state[:, : self.size], directions, conditions)
            if state.shape[1] == self.size:
                return dz
            return torch.cat((dz, (directions * dh).sum((1, 2))[:, None]), 1)

        def norm(error: Tensor) -> Tensor:  # of the row with the largest error
            z = error[:, : self.size].square().mean(1).sqrt()
            return z.max() if error.shape[1] == self.size else torch.maximum(z, error[:, -1].abs()).max()

        if steps is not None:
            grid = torch.linspace(*ends, steps + 1, dtype=state.dtype, device=state.device)
            return odeint(change, state, grid, method="rk4")[-1]
        times = torch.tensor(ends, dtype=state.dtype, device=state.device)
        # The last step shall end where the way does: from one beyond, torchdiffeq interpolates, which is less exact.
        options = {"norm": norm, "step_t": times[1:], "max_num_steps": MAX_STEPS}
        try:
            return odeint(
                change, state, times, rtol=self.tolerance, atol=self.tolerance, method="dopri5", options=options
            )[-1]
        except AssertionError as error:
            raise RuntimeError(
                f"the solver cannot keep a tolerance of {self.tolerance:g} ({error}); allow more, or ask in float64"
            ) from error


def _width(attribute: Attribute) -> int:
    """How many numbers of the attribute vector are an attribute's."""
    return len(attribute.values) if attribute.kind == "categorical" else 1
