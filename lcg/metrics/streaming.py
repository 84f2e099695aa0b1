"""Frechet distance in one pass: features go by in batches, on any number of processes, and none is kept.

Of each side, real and generated, the count n, the mean m and the scatter S = sum_i (f_i - m)(f_i - m)^T are carried
along in float64. Two disjoint parts a and b of a set merge exactly (Chan, Golub & LeVeque 1983, The American
Statistician 37(3), there for one dimension), with delta = m_b - m_a, by

    n = n_a + n_b,     m = m_a + delta n_b / n,     S = S_a + S_b + delta delta^T n_a n_b / n,

and C = S / (n - 1). A batch is a part, and so is what another process has seen. Sums of f and f f^T would merge by mere
addition, but their difference loses the covariance where means are large beside deviations; here nothing large is
subtracted. Memory is two (F + 1) x (F + 1) matrices, 67 MB for F = 2048, however many features there are.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from lcg.metrics.frechet import frechet_distance


class StreamingFrechet(Metric):
    """d^2 between real and generated features; see `lcg.metrics.frechet` for the distance itself.

    Under distributed training every process updates with its own rows, as many as it has, or none, and `compute` gives
    all of them the distance of the whole. Rows must not be repeated to make processes even: samplers that pad, as
    Lightning's do in `test` and `validate`, count some rows twice.

    Args:
        features: F >= 1, how many features a row has.

    Raises:
        ValueError: features < 1.

    Example:
        >>> metric = StreamingFrechet(features=2)
        >>> corners = torch.tensor([[0.0, 0.0], [0.0, 2.0], [2.0, 0.0], [2.0, 2.0]])
        >>> metric.update(corners, real=True)
        >>> metric.update(corners + 3, real=False)
        >>> round(float(metric.compute()), 6)
        18.0
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    real: Tensor
    generated: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"`features` must be >= 1, got {features}")
        self.features = features
        # One tensor per side, because torchmetrics reduces states one by one: [[n, m^T], [m, S]].
        for side in ("real", "generated"):
            empty = torch.zeros(features + 1, features + 1, dtype=torch.float64)
            self.add_state(side, empty, dist_reduce_fx=merge_parts)

    def update(self, features: Float[Tensor, "n features"], real: bool) -> None:
        """Takes a batch in.

        Args:
            features: (N, F) floating point, N >= 0, on the metric's device.
            real: whether they are of real images or of generated ones.

        Raises:
            TypeError: features that are not floating point, or `real` that is not bool.
            ValueError: features of another shape, or not finite.
        """
        if not isinstance(real, bool):
            raise TypeError(f"`real` must be True or False, got {real!r}; one call takes one side")
        if not features.is_floating_point():
            raise TypeError(f"`features` must be floating point, got {features.dtype}; pass features, not images")
        if features.ndim != 2 or features.shape[1] != self.features:
            raise ValueError(
                f"`features` must be (N, {self.features}), got shape {tuple(features.shape)}; flatten them, or make "
                "the metric for as many"
            )
        wrong = int((~features.isfinite()).any(dim=1).sum())
        if wrong:
            raise ValueError(f"`features` must be finite, got {wrong} of {len(features)} rows with NaN or infinity")
        side = "real" if real else "generated"
        setattr(self, side, merge_parts(torch.stack((getattr(self, side), part_of(features)))))

    def compute(self) -> Tensor:
        """d^2 >= 0 of all that was taken in, on all processes; float64, shape ().

        Raises:
            ValueError: no more rows of a side than features, so that its covariance is singular.
        """
        moments = []
        for name, state in (("generated", self.generated), ("real", self.real)):
            n = round(float(state[0, 0]))
            if n <= self.features:
                raise ValueError(
                    f"`{name}` features must be more rows than dimensions for a covariance of full rank, got N={n}, "
                    f"F={self.features}; take more samples"
                )
            moments += [state[0, 1:], state[1:, 1:] / (n - 1)]
        return torch.tensor(frechet_distance(*moments), dtype=torch.float64, device=self.device)


def part_of(features: Float[Tensor, "n features"]) -> Float[Tensor, "size size"]:
    """Count, mean and scatter of a set of features.

    Args:
        features: (N, F), N >= 0, finite.

    Returns:
        [[n, m^T], [m, S]], (F + 1, F + 1) float64; zero for no features.
    """
    f = features.detach().double()
    mean = f.sum(dim=0) / max(len(f), 1)
    centred = f - mean
    return _pack(torch.tensor(float(len(f)), dtype=torch.float64), mean, centred.T @ centred)


def merge_parts(parts: Float[Tensor, "parts size size"]) -> Float[Tensor, "size size"]:
    """Count, mean and scatter of a set from those of its disjoint parts, in turn.

    Args:
        parts: (P, F + 1, F + 1) float64, each [[n, m^T], [m, S]]; n = 0 is an empty part.

    Returns:
        The same of the whole, (F + 1, F + 1).
    """
    whole = parts[0]
    for part in parts[1:]:
        n_a, n_b = whole[0, 0], part[0, 0]
        n = (n_a + n_b).clamp(min=1)  # two empty parts make an empty one
        delta = part[0, 1:] - whole[0, 1:]
        mean = whole[0, 1:] + delta * (n_b / n)
        scatter = whole[1:, 1:] + part[1:, 1:] + torch.outer(delta, delta) * (n_a * n_b / n)
        whole = _pack(n_a + n_b, mean, scatter)
    return whole


def _pack(n: Tensor, mean: Tensor, scatter: Tensor) -> Tensor:
    """[[n, m^T], [m, S]]."""
    packed = mean.new_empty(len(mean) + 1, len(mean) + 1)
    packed[0, 0], packed[0, 1:], packed[1:, 0], packed[1:, 1:] = n, mean, mean, scatter
    return packed
