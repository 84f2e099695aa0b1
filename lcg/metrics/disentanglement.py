"""InfoMEC: how a latent space lays out the attributes, as three figures of information.

With sources s_i (attributes), latents z_j (coordinates) and the normalised mutual information

    NMI_ij = I(s_i; z_j) / H(s_i)     in [0, 1], over the active latents,

of n_s sources and n_z active latents (Hsu et al. 2023, arXiv:2305.18378, and the authors' code),

    InfoM = (1/n_z sum_j max_i NMI_ij / sum_i NMI_ij - 1/n_s) / (1 - 1/n_s)     modularity: a latent knows one source
    InfoC = (1/n_s sum_i max_j NMI_ij / sum_j NMI_ij - 1/n_z) / (1 - 1/n_z)     compactness: one latent knows a source
    InfoE = 1/n_s sum_i (H_V(s_i) - H_V(s_i | z)) / H_V(s_i)                    explicitness: it is read off linearly

where H_V(s | z) is the least cross-entropy of a logistic regression of s on all latents, and H_V(s) of one that sees
none (predictive V-information, Xu et al. 2020, arXiv:2002.10689). Explicitness is what guidance by a linear classifier
and latent arithmetic live on; it does not change under invertible linear maps of z, which the other two do.

Here we differ from the authors' code. It fits the probe with balanced classes but scores it without, which makes H_V(s)
the logarithm of the number of values; here neither is balanced, so that H_V(s) is the entropy of the labels. The two
agree where values are equally frequent, as in the paper's data. A latent that is active but tells nothing of any
source, or a source that no latent tells anything of, has 0/0 in the sums and is left out of the mean. And the probe is
penalised, by less than matters, so that one that separates the values has weights at all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PENALTY = 1e-6
"""Of the probe, times |weights|^2 / 2, in nats per sample."""

INACTIVE = 1 / 20
"""A continuous latent with less than this share of the widest latent's range is inactive, as in the authors' code."""


@dataclass(frozen=True, eq=False)
class InfoMEC:
    """The three figures and what they are made of.

    Attributes:
        modularity: InfoM in [0, 1]; NaN of one source, or when no latent tells anything.
        explicitness: InfoE, at most 1; 0 when a linear probe knows no more than the frequencies.
        compactness: InfoC in [0, 1]; NaN of fewer than two active latents, or when no latent tells anything.
        explained: (S,) explicitness of each source.
        nmi: (S, D) normalised mutual information of each source and latent, >= 0; also of the inactive ones.
        active: (D,) bool, which latents count.
    """

    modularity: float
    explicitness: float
    compactness: float
    explained: NDArray[np.float64]
    nmi: NDArray[np.float64]
    active: NDArray[np.bool_]


def infomec(latents: NDArray, sources: NDArray, discrete: bool = False, neighbours: int = 10, seed: int = 0) -> InfoMEC:
    """Modularity, explicitness and compactness of latents with respect to discrete sources.

    Args:
        latents: (N, D) finite numbers.
        sources: (N, S) values of discrete attributes, whole numbers or not, NaN where unknown: such rows are left out
            for that source.
        discrete: whether latents take few values (codes), whose frequencies are then counted; else their information is
            estimated from neighbours, which is a little noisy and never below 0.
        neighbours: of the estimator for continuous latents (Ross 2014, PLoS ONE 9(2)), >= 1; 10 in the authors' code.
        seed: of the tiny noise by which that estimator breaks ties, >= 0.

    Returns:
        The figures; explicitness is measured on the rows that the probe is fitted to, as in the authors' code, which
        flatters it by about D (values - 1) / (2 N) nats per source.

    Raises:
        ValueError: arrays of other shapes, latents that are not finite, a source with fewer than two values or with
            nothing but different ones, no active latent, or numbers out of range.
    """
    z, s = _checked(latents, sources)
    nmi = normalised_information(z, s, discrete, neighbours, seed)
    width = np.ptp(z, axis=0)
    active = width > (0 if discrete else INACTIVE * width.max())
    if not active.any():
        raise ValueError("`latents` must vary in at least one coordinate, got constants; check the encoder")
    explained = explicitness(z, s, discrete)
    return InfoMEC(
        modularity=_concentration(nmi[:, active].T),
        explicitness=float(explained.mean()),
        compactness=_concentration(nmi[:, active]),
        explained=explained,
        nmi=nmi,
        active=active,
    )


def normalised_information(
    latents: NDArray, sources: NDArray, discrete: bool = False, neighbours: int = 10, seed: int = 0
) -> NDArray[np.float64]:
    """NMI_ij = I(s_i; z_j) / H(s_i).

    Args:
        latents: see `infomec`.
        sources: see `infomec`.
        discrete: see `infomec`.
        neighbours: see `infomec`.
        seed: see `infomec`.

    Returns:
        (S, D), >= 0; for discrete latents at most 1, for others up to the estimator's noise.

    Raises:
        ValueError: as `infomec`.
    """
    from sklearn.metrics import mutual_info_score

    z, s = _checked(latents, sources)
    if neighbours < 1:
        raise ValueError(f"`neighbours` must be >= 1, got {neighbours}; 10 is usual")
    if seed < 0:
        raise ValueError(f"`seed` must be >= 0, got {seed}")
    rows = []
    for source in s.T:
        known = ~np.isnan(source)
        values, x = _codes(source[known]), z[known]
        if discrete:
            information = np.array([mutual_info_score(values, _codes(column)) for column in x.T])
        else:
            information = _neighbour_information(x, values, neighbours, seed)
        rows.append(np.maximum(information, 0) / _entropy(values))
    return np.stack(rows)


def _neighbour_information(
    x: NDArray[np.float64], codes: NDArray[np.int64], neighbours: int, seed: int
) -> NDArray[np.float64]:
    """I(s; z_j) in nats of every continuous latent, by Ross 2014, equation 4; scikit-learn's `mutual_info_classif`.

        I = psi(N) - <psi(N_s)> + <psi(k)> - <psi(m)>

    m counts the rows nearer than the k-th neighbour of the same value. On a line neighbours are next to each other in
    order, so that sorting finds them, several times as fast as the trees by which scikit-learn does.

    Args:
        x: (N, D).
        codes: (N,) the source.
        neighbours: k, or as many as a value has.
        seed: of the noise that breaks ties.

    Returns:
        (D,), below 0 by chance.
    """
    repeated = (np.bincount(codes) > 1)[codes]
    scale = x.std(axis=0)
    x = x / np.where(scale > 0, scale, 1)
    noise = np.random.RandomState(seed).standard_normal(x.shape)
    x = (x + 1e-10 * np.maximum(1, np.abs(x).mean(axis=0)) * noise)[repeated]
    codes, n = codes[repeated], int(repeated.sum())
    psi = np.concatenate(([-np.inf, 0], np.cumsum(1 / np.arange(1, n))))  # less psi(1), which cancels
    everyone, information = np.sort(x, axis=0), np.zeros(x.shape[1])
    for code in np.unique(codes):
        own = np.sort(x[codes == code], axis=0)
        k = min(neighbours, len(own) - 1)
        low, high = _open_neighbourhood(own, k)
        for j, column in enumerate(everyone.T):
            m = column.searchsorted(high[:, j], "left") - column.searchsorted(low[:, j], "right")
            information[j] += len(own) * (psi[k] - psi[len(own)]) - psi[m].sum()
    return psi[n] + information / n


def _open_neighbourhood(own: NDArray[np.float64], k: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The open interval around each number that its k-th nearest neighbour just does not lie in.

    The neighbour's side ends at that very number: adding a distance to another would round it in or out.

    Args:
        own: (n, D), every column in ascending order without ties, n > k.
        k: >= 1.

    Returns:
        Lower and upper ends (n, D).
    """
    n = len(own)
    edge = np.full((k, own.shape[1]), np.inf)
    padded = np.concatenate((-edge, own, edge))
    distance, low, high = np.full_like(own, np.inf), np.empty_like(own), np.empty_like(own)
    for below in range(k + 1):  # of the k nearest, so many lie below
        first, last = padded[k - below : k - below + n], padded[2 * k - below : 2 * k - below + n]
        down, up = own - first, last - own
        reach = np.maximum(down, up)
        nearer = reach < distance
        distance = np.where(nearer, reach, distance)
        low = np.where(nearer, np.where(down >= up, first, own - reach), low)
        high = np.where(nearer, np.where(up >= down, last, own + reach), high)
    return low, high


def explicitness(latents: NDArray, sources: NDArray, discrete: bool = False) -> NDArray[np.float64]:
    """Of each source, the share of its entropy that a logistic regression on all latents predicts.

    Args:
        latents: see `infomec`; those called discrete are given to the probe one-hot.
        sources: see `infomec`.
        discrete: see `infomec`.

    Returns:
        (S,), at most 1; a mean over them is InfoE.

    Raises:
        ValueError: as `infomec`.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    z, s = _checked(latents, sources)
    shares = []
    for source in s.T:
        known = ~np.isnan(source)
        values, x = _codes(source[known]), _one_hot(z[known]) if discrete else _standardised(z[known])
        probe = LogisticRegression(C=1 / (PENALTY * len(values)), max_iter=2000).fit(x, values)
        shares.append(1 - log_loss(values, probe.predict_proba(x)) / _entropy(values))
    return np.array(shares)


def _concentration(information: NDArray[np.float64]) -> float:
    """How far each row is concentrated on one column, from 0 (even) to 1, on average over rows that hold anything."""
    total, columns = information.sum(axis=1), information.shape[1]
    told = total > 0
    if columns < 2 or not told.any():
        return float("nan")
    share = float((information[told].max(axis=1) / total[told]).mean())
    return (share - 1 / columns) / (1 - 1 / columns)


def _checked(latents: NDArray, sources: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64."""
    if latents.ndim != 2 or sources.ndim != 2 or len(latents) != len(sources) or not latents.size or not sources.size:
        raise ValueError(
            "`latents` and `sources` must be (N, D) and (N, S), a row per sample, neither empty, "
            f"got {latents.shape} and {sources.shape}"
        )
    z, s = latents.astype(np.float64), sources.astype(np.float64)
    if not np.isfinite(z).all():
        raise ValueError("`latents` must be finite, got NaN or infinity; leave out such rows")
    for i, source in enumerate(s.T):
        known = source[~np.isnan(source)]
        if not 2 <= len(np.unique(known)) < max(len(known), 3):
            raise ValueError(
                f"`sources[:, {i}]` must take at least two values, and some of them twice, got {len(np.unique(known))} "
                f"in {len(known)} known rows; leave out a constant, and bin a continuous source, e.g. with np.digitize"
            )
    return z, s


def _codes(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) 0, 1, ... in the order of the values."""
    return np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _entropy(codes: NDArray[np.int64]) -> float:
    """In nats, of the values' frequencies."""
    p = np.bincount(codes) / len(codes)
    return float(-(p * np.log(p)).sum())  # every code occurs


def _one_hot(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, values of all latents)."""
    return np.concatenate([np.eye(codes.max() + 1)[codes] for codes in map(_codes, z.T)], axis=1)


def _standardised(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean 0 and variance 1, where a latent varies."""
    scale = z.std(axis=0)
    return (z - z.mean(axis=0)) / np.where(scale > 0, scale, 1)
