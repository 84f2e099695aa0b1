"""The latent denoiser: a perceptron that predicts the noise in z_t, trained on eps or on v.

    eps_hat = net(z_t, t)                                  prediction = "eps"
    eps_hat = sigma_t z_t + alpha_t net(z_t, t)            prediction = "v"

v = alpha_t eps - sigma_t z_0 (Salimans & Ho 2022, arXiv:2202.00512) stays well scaled at both ends: near pure noise an
error of the network is an error of z_0_hat, where eps would divide it by alpha_t. The marginals of a sample are decided
there, so v is the default.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lcg.diffusion import ConstantSchedule, CosineSchedule, LinearSchedule, Schedule, diffuse, eps_from_v
from lcg.diffusion.process import velocity
from lcg.nets.blocks import Door, SkipPerceptron
from lcg.nets.concat import ConcatPerceptron
from lcg.nets.execution import Execution
from lcg.nets.prepared import AtOneTime, Prepared

Prediction = Literal["eps", "v"]
ScheduleName = Literal["cosine", "linear", "constant"]
Layers = Literal["residual", "concat"]
"""How layers are joined: residual blocks (`SkipPerceptron`), or each given the latent again (`ConcatPerceptron`)."""


def make_schedule(name: ScheduleName) -> Schedule:
    """The schedule that a configuration names. Raises ValueError for an unknown name."""
    if name == "cosine":
        return CosineSchedule()
    if name == "linear":
        return LinearSchedule()
    if name == "constant":
        return ConstantSchedule()
    raise ValueError(f"`schedule` must be one of {', '.join(get_args(ScheduleName))}, got {name!r}")


class LatentDenoiser(nn.Module):
    """A `Denoiser` over standardised latents of any shape (flattened inside).

    Args:
        latent_shape: shape of one latent.
        width: hidden width.
        depth: residual blocks, or layers of `concat`.
        prediction: what the network is trained on.
        schedule: the noise schedule.
        dropout: in training.
        time_features: dimension of the time's embedding; sampling does not get slower with it (see `prepare`).
        layers: `residual`, or `concat`, the network of Diffusion Autoencoders' latent prior.

    Raises:
        ValueError: unknown prediction, schedule or layers.

    Attributes:
        execution: how the network is run once its weights are frozen; may be set at any time.
        net: the perceptron.
    """

    net: Any  # one `Perceptron` or the other

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        width: int = 512,
        depth: int = 3,
        prediction: Prediction = "v",
        schedule: ScheduleName = "cosine",
        dropout: float = 0.0,
        time_features: int = 64,
        layers: Layers = "residual",
    ) -> None:
        super().__init__()
        for name, value, known in (("prediction", prediction, Prediction), ("layers", layers, Layers)):
            if value not in get_args(known):
                raise ValueError(f"`{name}` must be one of {', '.join(get_args(known))}, got {value!r}")
        self.config: dict[str, Any] = {
            "latent_shape": list(latent_shape),
            "width": width,
            "depth": depth,
            "prediction": prediction,
            "schedule": schedule,
            "dropout": dropout,
            "time_features": time_features,
            "layers": layers,
        }
        self.latent_shape, self.prediction, self.schedule = tuple(latent_shape), prediction, make_schedule(schedule)
        size = math.prod(latent_shape)
        kind = SkipPerceptron if layers == "residual" else ConcatPerceptron
        self.net = kind(size, size, width, depth, time_features, dropout)
        self.door, self.execution, self._prepared = Door(), Execution(), Prepared([self.net])
        if layers == "residual":  # the other keeps its authors' weights
            nn.init.zeros_(self.net.output.weight)  # starts at the prior mean: v_hat = 0 is exact for N(0, I) latents
            nn.init.zeros_(self.net.output.bias)

    def forward(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *latent"]:
        """eps_hat. Raises ValueError when the latents have another shape than the network."""
        output = self.predict(z_t, t)
        return eps_from_v(self.schedule, z_t, t, output) if self.prediction == "v" else output

    def predict(
        self, z_t: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch *latent"]:
        """The network's own prediction, eps or v, in the precision of z_t."""
        self._check_shape(z_t)
        return self.net(z_t.flatten(1), t).to(z_t.dtype).view_as(z_t)

    def prepare(self, times: Float[Tensor, " steps"]) -> list[Callable[[Tensor], Tensor]]:
        """eps_hat of z_t at each of these times, as functions of z_t: the same up to rounding, and fast."""
        nets = self._prepared.at(times, self.execution)
        exact = times.double()
        coefs = zip(self.schedule.alpha(exact).tolist(), self.schedule.sigma(exact).tolist(), strict=True)
        return [partial(self._eps_hat, net, *coef) for net, coef in zip(nets, coefs, strict=True)]

    def _eps_hat(self, net: AtOneTime, alpha: float, sigma: float, z_t: Tensor) -> Tensor:
        self._check_shape(z_t)
        output = net(self.door(self._inputs(z_t))).to(z_t.dtype).view_as(z_t)
        return torch.add(sigma * z_t, output, alpha=alpha) if self.prediction == "v" else output

    def _inputs(self, z_t: Tensor) -> Tensor:
        """What the network is given beside the time, (B, inputs)."""
        return z_t.flatten(1)

    def _check_shape(self, z_t: Tensor) -> None:
        if tuple(z_t.shape[1:]) != self.latent_shape:
            raise ValueError(
                f"the denoiser was trained on latents of shape {self.latent_shape}, got {tuple(z_t.shape[1:])}; "
                "use the prior that was fitted on this store"
            )

    def loss(
        self, z_0: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"], eps: Float[Tensor, "batch *latent"]
    ) -> Float[Tensor, " batch"]:
        """Mean squared error per row (Ho et al. 2020, arXiv:2006.11239, equation 14; Salimans & Ho for v)."""
        return self.error(z_0, t, eps).square().flatten(1).mean(dim=1)

    def error(
        self, z_0: Float[Tensor, "batch *latent"], t: Float[Tensor, " batch"], eps: Float[Tensor, "batch *latent"]
    ) -> Float[Tensor, "batch *latent"]:
        """The prediction at z_t less what it should be, eps or v."""
        target = velocity(self.schedule, z_0, t, eps) if self.prediction == "v" else eps
        return self.predict(diffuse(self.schedule, z_0, t, eps), t) - target


def stratified_times(
    count: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """(count,) times t ~ U(0, 1), one in each of `count` equal intervals, not shuffled: rows are exchangeable."""
    return (torch.arange(count, device=device) + torch.rand(count, generator=generator, device=device)) / count


def logit_normal_times(
    count: int, spread: float, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """(count,) times with logit(t) ~ N(0, spread^2), one in each of `count` equally probable intervals.

    Esser et al. 2024 (arXiv:2403.03206, section 3.1): little is left to learn near t = 0 and t = 1; attributes are
    decided in between, and a prior that spends its steps there gets their dependences right sooner.

    Raises:
        ValueError: spread is not positive.
    """
    if not spread > 0:
        raise ValueError(f"`spread` must be positive, got {spread}; 1 is broad, use stratified_times for U(0, 1)")
    u = stratified_times(count, generator, device).double().clamp(1e-6, 1 - 1e-6)
    return torch.sigmoid(spread * torch.special.ndtri(u)).float()
