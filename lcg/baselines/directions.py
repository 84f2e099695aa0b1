"""Directions found without labels, which then give them names.

    z' = z_0 + strength * k * sum_i w_i s_i c_i std_i u_i,        s = +1 for a, -1 for ~a

u_i is the unit direction that an atom is matched to, c_i = +-1 its sign, std_i the standard deviation of u_i . z_0 over
the training latents, k = 3. Directions come from

* pca: the principal components of the latents (GANSpace: Härkönen et al. 2020, arXiv:2004.02546); at most 80.
* sefa: the eigenvectors of A^T A, where A is the weight of the first layer that takes the latent: the unit vectors that
  change what it gives most (Shen & Zhou 2021, arXiv:2007.06600).
* householder: the right factor of the orthogonal matrix of rank r = 10 that replaces that weight, each factor a product
  of Householder reflections, A -> Q_U I_r Q_V^T, Q = H_1 H_2 ... H_r, H = I - 2 v v^T / |v|^2 (Song, Zhang, Sebe & Wang
  2023, "Householder Projector for Unsupervised Latent Semantics Discovery", arXiv:2307.08012).
* jacobian: the right singular vectors of the mean Jacobian of the image, J = E[d x / d z_0], by power iteration on
  J^T J (after Haas et al. 2023, arXiv:2303.11073, and Zhu et al. 2021, arXiv:2106.04488); at most 80.

The authors of all four look at what a direction does and name it. Here labels look: an atom is matched to the direction
whose projection correlates most with it, in absolute value, over the labelled latents, and turned by the sign of that.

Where we differ, and why:

* Their directions may be applied to some layers of a generator only; here the latent is moved as a whole.
* All of it is in standardised latents, as every other method here. With z = mean + std z_0 the layer's weight is
  A diag(std); principal components are those of z_0.
* GANSpace walks 2 standard deviations by default, SeFa 3 units; k = 3 is for all.
* SeFa's code gives every row of A length 1 first; its paper does not, and neither do we.
* Householder Projectors start from the singular value decomposition of a trained weight and are fine-tuned with the
  generator; without singular values every direction changes the layer by as much. Our generators are frozen, so they
  stay where they start, at Q_U I_r Q_V^T = U_r V_r^T, of all matrices with r singular values 1, and else 0, the nearest
  to A. What remains is a closed form: the first r directions of sefa, few to choose from.
* Haas et al. decompose the Jacobian of a denoiser at one image, Zhu et al. that of a generator on a region of one. For
  directions that serve all images it is averaged over latents. Of few dimensions it is computed whole.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import Self

from lcg.baselines.contract import Training
from lcg.baselines.latent_arithmetic import Directional, sides
from lcg.guidance import Atom
from lcg.guidance.terms import leaf

Kind = Literal["pca", "sefa", "householder", "jacobian"]

RANK: dict[str, int | None] = {"pca": 80, "sefa": None, "householder": 10, "jacobian": 80}
"""How many directions are kept at most, None for all: as the authors, but for the jacobian, which goes with pca."""

OVERSAMPLING = 10
"""Vectors that are iterated beside those that are kept: the last to converge are not among these."""

BATCH = 128
"""Images, or derivatives of images, that are decoded at once for the Jacobian."""

TOGETHER = 16
"""Directions that a latent is moved in at once."""


@dataclass(frozen=True)
class Match:
    """The direction that an atom is matched to.

    Attributes:
        index: of the direction.
        correlation: of its projection with the atom's truth, in [-1, 1].
    """

    index: int
    correlation: float


class UnsupervisedDirections(Directional):
    """Edits and generates along directions found without labels; the kind is its name.

    Args:
        kind: pca, sefa, householder or jacobian.
        deviations: how far to move at strength 1, in standard deviations of the projection.
        rank: how many directions to find, as many as there are at most; None for the method's own.
        samples: latents over which the Jacobian is averaged.
        iterations: of its power iteration, where it takes one.
        seed: of what it draws.

    Attributes:
        directions: (R, D) float64, orthonormal rows, the most important first; after `fit`.
        deviation: (R,) standard deviations of the projections.

    Raises:
        ValueError: there is no such kind, or a number is not positive.
    """

    name: str  # by the kind
    strengths: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)

    def __init__(
        self,
        kind: Kind = "pca",
        deviations: float = 3.0,
        rank: int | None = None,
        samples: int = 256,
        iterations: int = 5,
        seed: int = 0,
    ) -> None:
        if kind not in get_args(Kind):
            raise ValueError(f"`kind` must be one of {', '.join(get_args(Kind))}, got {kind!r}")
        if not 0 < deviations < math.inf:
            raise ValueError(f"`deviations` must be finite and > 0, got {deviations}; to go back, negate the edit")
        for name, value in (("rank", rank), ("samples", samples), ("iterations", iterations)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        self.kind, self.name, self.deviations, self.rank = kind, kind, deviations, rank
        self.samples, self.iterations, self.seed = samples, iterations, seed

    def fit(self, training: Training) -> Self:
        """See `Baseline`. Raises ValueError when the generator has no linear layer that takes the latent."""
        rank = RANK[self.kind] if self.rank is None else self.rank
        if self.kind == "pca":
            found = principal_components(training.z_0, rank)
        elif self.kind == "jacobian":
            rows = torch.randperm(len(training.z_0), generator=torch.Generator().manual_seed(self.seed))
            found = jacobian_directions(training, rows[: self.samples], rank, self.iterations, self.seed)
        else:
            weight = first_weight(training)
            if self.kind == "sefa":
                found = torch.linalg.svd(weight, full_matrices=False).Vh[:rank]
            else:
                found = householder_projector(weight, rank)[1].T
        self.directions = found.double()
        z_0 = training.z_0.flatten(1).double()
        self._projections = (z_0 - z_0.mean(dim=0)) @ self.directions.T
        self.deviation = self._projections.std(dim=0, correction=0)
        return super().fit(training)

    def match(self, atom: Atom) -> Match:
        """The direction whose projection correlates most with an atom, in absolute value, over the labelled latents.

        Raises:
            RuntimeError: before `fit`.
            ValueError: the atom holds for no or for every labelled latent.
        """
        true, false = sides(atom, self.training)
        known = true | false
        y, p = true[known].double(), self._projections[known]
        y, p = y - y.mean(), p - p.mean(dim=0)
        correlation = (y @ p / (y.norm() * p.norm(dim=0))).nan_to_num()  # of what never varies, 0
        index = int(correlation.abs().argmax())
        return Match(index, float(correlation[index]))

    def _find_step(self, atom: Atom) -> Float[Tensor, "*latent"]:
        match = self.match(atom)
        sign = math.copysign(1.0, match.correlation)
        step = sign * self.deviations * self.deviation[match.index] * self.directions[match.index]
        return step.reshape(self.training.latent_shape)


# --- principal components ---------------------------------------------------------------------------------------------


def principal_components(z_0: Float[Tensor, "n *latent"], rank: int | None = None) -> Float[Tensor, "rank elements"]:
    """Principal components of latents, the largest variance first.

    Args:
        z_0: (N, *latent).
        rank: how many, as many as there are at most.

    Returns:
        (R, D) float64, orthonormal rows.
    """
    from sklearn.decomposition import PCA

    rows = z_0.flatten(1).double().cpu().numpy()
    fitted = PCA(min(*rows.shape, rank or max(rows.shape)), random_state=0).fit(rows)
    return torch.tensor(fitted.components_, dtype=torch.float64, device=z_0.device)


# --- the first layer --------------------------------------------------------------------------------------------------


def first_weight(training: Training) -> Float[Tensor, "outputs elements"]:
    """A diag(std), the first linear layer that `decode` calls on as many inputs as a latent has elements, by z_0.

    Where latents are whitened, A W^-1.

    Returns:
        (outputs, D) float64.

    Raises:
        ValueError: there is none.
    """
    size, called = math.prod(training.latent_shape), list[nn.Module]()

    def note(layer: nn.Module, *_: object) -> None:
        called.append(layer)

    layers = [m for m in training.generator.modules() if isinstance(m, nn.Linear) and m.in_features == size]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        with torch.no_grad():
            training.decode(training.z_0[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not called:
        raise ValueError(
            f"{type(training.generator).__name__} decodes without a torch.nn.Linear of {size} inputs, so no layer "
            "takes the latent as a whole; use the kind pca or jacobian"
        )
    weight = called[0].get_parameter("weight").detach().to(training.z_0.device).double()
    whitening = training.statistics.whitening
    if whitening is not None:
        return weight @ whitening.inverse.to(weight)
    return weight * training.statistics.std.to(weight).flatten()


def householder_projector(
    weight: Float[Tensor, "outputs elements"], rank: int | None = None
) -> tuple[Float[Tensor, "outputs rank"], Float[Tensor, "elements rank"]]:
    """The factors of the nearest matrix of a rank whose singular values are 1, each of accumulated reflections.

    Args:
        weight: A.
        rank: r, as many as there are at most.

    Returns:
        Q_U (outputs, r) and Q_V (D, r), orthonormal columns; the projector is Q_U Q_V^T.
    """
    u, _, vh = torch.linalg.svd(weight, full_matrices=False)
    left, right = u[:, :rank], vh[:rank].T
    return _by_reflections(left), _by_reflections(right)


def reflectors(basis: Float[Tensor, "elements rank"]) -> Float[Tensor, "rank elements"]:
    """Unit vectors v_k of the Householder reflections that triangularise a matrix of full column rank, (R, D)."""
    rest, vectors = basis.clone(), []
    for k in range(rest.shape[1]):
        v = rest[:, k].clone()
        v[:k] = 0
        v[k] += torch.copysign(v.norm(), v[k])  # the sign that does not cancel
        v = v / v.norm()
        rest = rest - 2 * torch.outer(v, v @ rest)
        vectors.append(v)
    return torch.stack(vectors)


def accumulate(vectors: Float[Tensor, "rank elements"]) -> Float[Tensor, "elements elements"]:
    """H_1 H_2 ... H_r, an orthogonal matrix (D, D), whatever the vectors are."""
    product = torch.eye(vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
    for v in vectors:
        product = product - 2 * torch.outer(product @ v, v) / (v @ v)
    return product


def _by_reflections(basis: Float[Tensor, "elements rank"]) -> Float[Tensor, "elements rank"]:
    """Orthonormal columns as the first columns of accumulated reflections, which are those up to their signs."""
    q = accumulate(reflectors(basis))[:, : basis.shape[1]]
    return q * (q * basis).sum(dim=0).sign()


# --- the Jacobian -----------------------------------------------------------------------------------------------------


def jacobian_directions(
    training: Training, rows: Tensor, rank: int | None = None, iterations: int = 5, seed: int = 0
) -> Float[Tensor, "rank elements"]:
    """The right singular vectors of the mean Jacobian J = E[d x / d z_0], the largest singular value first.

    Subspace iteration V <- orthonormal(J^T J V) from random vectors, then the singular value decomposition of J V.

    Args:
        training: with the generator.
        rows: of the latents that are averaged over.
        rank: how many, as many as there are at most.
        iterations: products with J^T J.
        seed: of the random vectors.

    Returns:
        (R, D) float64.
    """
    z_0, size = training.z_0[rows.to(training.z_0.device)], math.prod(training.latent_shape)
    rank = min(size, rank or size)
    width = min(size, rank + OVERSAMPLING)
    if size <= (2 * iterations + 1) * width:  # all of J costs no more than the iteration
        v, iterations = torch.eye(size).to(z_0), 0
    else:
        v = torch.randn(size, width, generator=torch.Generator().manual_seed(seed)).to(z_0)
    for _ in range(iterations):
        v = _pulled_back(training, z_0, _pushed_forward(training, z_0, torch.linalg.qr(v).Q))
    v = torch.linalg.qr(v).Q
    turn = torch.linalg.svd(_pushed_forward(training, z_0, v).double(), full_matrices=False).Vh
    return turn[:rank] @ v.double().T


def _pushed_forward(training: Training, z_0: Tensor, v: Float[Tensor, "elements rank"]) -> Tensor:
    """J v, (pixels, R), by forward differentiation, in which several directions share the way of a latent."""
    total = torch.zeros(())
    for chunk in z_0.split(BATCH // TOGETHER):

        def push(d: Tensor, chunk: Tensor = chunk) -> Tensor:
            direction = d.reshape(chunk.shape[1:]).expand_as(chunk)
            return cast(Tensor, torch.func.jvp(training.decode, (chunk,), (direction,))[1]).sum(dim=0).flatten()

        total = total + torch.func.vmap(push, in_dims=1, out_dims=1, chunk_size=TOGETHER)(v)
    return total / len(z_0)


def _pulled_back(training: Training, z_0: Tensor, u: Float[Tensor, "pixels rank"]) -> Tensor:
    """J^T u, (D, R), by backward differentiation."""
    total = torch.zeros(())
    for chunk in z_0.split(BATCH // 2):
        with torch.enable_grad():
            z = leaf(chunk)
            x = training.decode(z)
            directions = [d.reshape(x.shape[1:]).expand_as(x) for d in u.T]
            products = [torch.autograd.grad(x, z, d, retain_graph=True)[0] for d in directions]
        total = total + torch.stack([product.sum(dim=0).flatten() for product in products], dim=1)
    return total / len(z_0)
