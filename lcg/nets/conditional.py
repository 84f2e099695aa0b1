"""A denoiser that can be told labels, some of them or none: the scores that classifier-free guidance is made of.

    eps_theta(z_t, t, y),      y in R^A, NaN where z_t is not conditioned on that attribute,
    h_0 = W_in [z_t; e_1(y_1); ...; e_A(y_A); tau(t)],      e_j(NaN) learnt like any other value

One network gives eps(z_t), every eps(z_t | y_j) and every eps(z_t | some of y), because labels are dropped in training
(Ho & Salimans 2022, arXiv:2207.12598, algorithm 1, where there is one label and it is dropped with probability 0.1 or
0.2). With A attributes that each stay with one fixed probability, a single attribute would hardly ever be seen alone;
`drop_labels` therefore also draws how many stay, and shows single attributes on purpose: they are the conditionals of
Composable Diffusion (Liu et al. 2022, arXiv:2206.01714).

All else is `LatentDenoiser`'s: the network, its prediction of eps or v, the schedule. The embeddings enter beside the
latent, where the first layer adds them up; the authors' U-Nets add them to the embedding of the time instead.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lcg.diffusion import diffuse, eps_from_v
from lcg.diffusion.process import velocity
from lcg.nets.blocks import SkipPerceptron
from lcg.nets.denoiser import LatentDenoiser, Prediction, ScheduleName
from lcg.nets.prepared import Prepared
from lcg.schema import Schema


class LabelEmbedding(nn.Module):
    """e_j(y_j) for all attributes, one beside the other.

    A row of a table for every value of a binary or categorical attribute and one for NaN; a small perceptron of the
    standardised value for a continuous attribute, and a row for NaN.

    Args:
        schema: the labels' columns.
        features: of each attribute.
    """

    center: Tensor
    scale: Tensor

    def __init__(self, schema: Schema, features: int) -> None:
        super().__init__()
        sizes = {"binary": lambda _: 2, "categorical": len, "continuous": lambda _: 1}
        values = torch.tensor([sizes[a.kind](a.values) for a in schema])
        self.schema, self.features = schema, features
        self.continuous = [j for j, a in enumerate(schema) if a.kind == "continuous"]
        # No buffers: averaging of weights averages buffers too, and rounds those of integers down.
        self.values, self.offset = values, (values + 1).cumsum(0) - values - 1  # NaN comes after the last value
        self.register_buffer("center", torch.zeros(len(schema)))
        self.register_buffer("scale", torch.ones(len(schema)))
        self.table = nn.Embedding(int((values + 1).sum()), features)
        self.curves = nn.ModuleList(
            nn.Sequential(nn.Linear(1, features), nn.SiLU(), nn.Linear(features, features)) for _ in self.continuous
        )

    def forward(self, labels: Float[Tensor, "batch attributes"]) -> Float[Tensor, "batch embedding"]:
        known = ~labels.isnan()
        y = labels.where(known, 0).to(self.center)
        value = y.long()
        value[:, self.continuous] = 0
        rows = self.offset.to(y.device) + torch.where(known, value, self.values.to(y.device))
        embedded = self.table(rows)
        for j, curve in zip(self.continuous, self.curves, strict=True):
            shift = curve((y[:, j : j + 1] - self.center[j]) / self.scale[j])
            embedded[:, j] = embedded[:, j] + known[:, j : j + 1] * shift
        return embedded.flatten(1)

    @torch.no_grad()
    def standardise(self, labels: Float[Tensor, "n attributes"]) -> None:
        """Takes mean and standard deviation of continuous attributes from labels (N, A), NaN where missing."""
        for j in self.continuous:
            known = labels[~labels[:, j].isnan(), j].double()
            if len(known) > 1 and float(known.std()) > 0:
                self.center[j], self.scale[j] = known.mean(), known.std()

    def check(self, labels: Float[Tensor, "batch attributes"]) -> None:
        """Raises ValueError for a wrong number of columns, or a label that its attribute cannot have."""
        if labels.shape[1] != len(self.schema):
            raise ValueError(
                f"`labels` must have {len(self.schema)} columns, one per attribute of the schema, got "
                f"{labels.shape[1]}; mark attributes that are not conditioned on by NaN"
            )
        continuous = torch.zeros(len(self.schema), dtype=torch.bool)
        continuous[self.continuous] = True
        inside = (labels >= 0) & (labels < self.values.to(labels.device)) & (labels == labels.floor())
        valid = labels.isnan() | torch.where(continuous.to(labels.device), labels.isfinite(), inside)
        if not bool(valid.all()):
            row, j = (~valid).nonzero()[0].tolist()
            attribute = self.schema.attributes[j]
            expected = "finite" if attribute.kind == "continuous" else f"one of 0 to {int(self.values[j]) - 1}"
            raise ValueError(
                f"`labels` of {attribute.kind} attribute {attribute.name!r} must be {expected} or NaN, got "
                f"{float(labels[row, j]):g}; use the schema that the network was fitted with"
            )


class ConditionalDenoiser(LatentDenoiser):
    """A `Denoiser` over standardised latents that takes labels too; without labels it is the unconditional one.

    Args:
        latent_shape: shape of one latent.
        schema: the labels' columns.
        width: hidden width.
        depth: residual blocks.
        prediction: what the network is trained on.
        schedule: the noise schedule.
        dropout: of hidden units, in training; labels are dropped by `drop_labels`.
        features: of the embedding of each attribute, at least 1.
        time_features: dimension of the time's embedding.

    Raises:
        ValueError: unknown prediction or schedule, or no features.
    """

    def __init__(
        self,
        latent_shape: tuple[int, ...],
        schema: Schema,
        width: int = 512,
        depth: int = 3,
        prediction: Prediction = "v",
        schedule: ScheduleName = "cosine",
        dropout: float = 0.0,
        features: int = 16,
        time_features: int = 64,
    ) -> None:
        super().__init__(latent_shape, width, depth, prediction, schedule, dropout, time_features)
        if features < 1:
            raise ValueError(f"`features` must be at least 1, got {features}; 16 is usual")
        del self.config["layers"]  # residual always
        self.config |= {"schema": schema.to_dict(), "features": features}
        self.schema = schema
        self.embedding = LabelEmbedding(schema, features)
        size = math.prod(latent_shape)
        self.net = SkipPerceptron(size + features * len(schema), size, width, depth, time_features, dropout)
        self._prepared = Prepared([self.net])
        nn.init.zeros_(self.net.output.weight)
        nn.init.zeros_(self.net.output.bias)

    def forward(
        self,
        z_t: Float[Tensor, "batch *latent"],
        t: Float[Tensor, " batch"],
        labels: Float[Tensor, "rows attributes"] | None = None,
    ) -> Float[Tensor, "batch *latent"]:
        """eps_hat given labels.

        Args:
            z_t: noised latents (B, *latent).
            t: their times (B,).
            labels: (B, A), or (1, A) for all rows, NaN where not conditioned on; None for no condition at all.

        Raises:
            ValueError: latents of another shape than the network's, a number of labels that is neither 1 nor that of
                the latents, or (in evaluation) labels that the schema does not have.
        """
        output = self.predict(z_t, t, labels)
        return eps_from_v(self.schedule, z_t, t, output) if self.prediction == "v" else output

    def predict(
        self,
        z_t: Float[Tensor, "batch *latent"],
        t: Float[Tensor, " batch"],
        labels: Float[Tensor, "rows attributes"] | None = None,
    ) -> Float[Tensor, "batch *latent"]:
        """The network's own prediction given labels, eps or v, in the precision of z_t."""
        self._check_shape(z_t)
        return self.net(self._inputs(z_t, labels), t).to(z_t.dtype).view_as(z_t)

    def _inputs(self, z_t: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            labels = torch.full((1, len(self.schema)), torch.nan, device=z_t.device)
        if len(labels) not in (1, len(z_t)):
            raise ValueError(f"`labels` must have one row or {len(z_t)}, one per latent, got {len(labels)}")
        if not self.training:
            self.embedding.check(labels)
        given = self.embedding(labels).expand(len(z_t), -1)
        return torch.cat((z_t.flatten(1), given.to(z_t.dtype)), dim=1)

    def loss(
        self,
        z_0: Float[Tensor, "batch *latent"],
        t: Float[Tensor, " batch"],
        eps: Float[Tensor, "batch *latent"],
        labels: Float[Tensor, "rows attributes"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Mean squared error per row, given labels as `drop_labels` left them."""
        target = velocity(self.schedule, z_0, t, eps) if self.prediction == "v" else eps
        error = self.predict(diffuse(self.schedule, z_0, t, eps), t, labels) - target
        return error.square().flatten(1).mean(dim=1)


def drop_labels(
    labels: Float[Tensor, "batch attributes"],
    unconditional: float = 0.1,
    single: float = 0.3,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch attributes"]:
    """Labels with some replaced by NaN, each row for itself.

    A row keeps none with probability `unconditional`, exactly one of its known labels with probability `single`, and
    else each with a probability that is itself drawn from U(0, 1), so that any number of conditions is equally common.

    Args:
        labels: (B, A), NaN where missing.
        unconditional: share of rows without any label, in [0, 1].
        single: share of rows with one label, in [0, 1 - unconditional].
        generator: randomness, on the labels' device.

    Raises:
        ValueError: shares that are negative or add up to more than 1.
    """
    if not (unconditional >= 0 and single >= 0 and unconditional + single <= 1):
        raise ValueError(
            f"`unconditional` and `single` must be shares >= 0 that add up to at most 1, got {unconditional} and "
            f"{single}; 0.1 and 0.3 are usual"
        )
    rows, attributes = labels.shape
    u = torch.rand(rows, attributes + 2, generator=generator, device=labels.device)
    which, rate, u = u[:, :1], u[:, 1:2], u[:, 2:]
    one = functional.one_hot(u.masked_fill(labels.isnan(), -1.0).argmax(1), attributes).bool()
    kept = torch.where(which < unconditional + single, one, u < rate) & (which >= unconditional)
    return labels.where(kept, torch.nan)
