"""What is chosen: by exact gains, one after the other, and never a copy of what was chosen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lcg.labels.active_acquisition import ACQUISITIONS, Acquisition, Learner, choose, greedy, k_centre
from lcg.labels.active_posterior import Sight, low_rank, posterior, stratified
from tests.labels.test_active_posterior import SCHEDULE, classifier, latents, rng

N = 60


def learner(guided: bool, z: Tensor, missing: Tensor | None = None, name: str = "hat") -> Learner:
    missing = torch.ones(len(z), dtype=torch.bool) if missing is None else missing
    sight = Sight(classifier(), name, SCHEDULE)
    return Learner(sight, z, missing, latents(20, seed=9), guided, (0.1, 0.9), latents(500, seed=8), rng())


def chosen(acquisition: Acquisition, num: int, z: Tensor | None = None, seed: int = 0, **more: Any) -> Tensor:
    z = latents(N) if z is None else z
    missing = more.pop("missing", torch.ones(len(z), 1, dtype=torch.bool))
    known = latents(20, seed=9)
    labelled = torch.ones(20, 1, dtype=torch.bool)
    return choose(acquisition, num, z, missing, known, labelled, ["hat"], classifier(), SCHEDULE, seed=seed, **more)


@pytest.mark.parametrize("name", ["hat", "hair", "age"])
def test_a_gain_is_what_the_label_takes_from_the_error_of_guidance(name: str) -> None:
    """tr(S G) - tr(S' G), S' by the inverse of the precision with the label's own share, again after a choice."""
    z, sight, random = latents(N), Sight(classifier(), name, SCHEDULE), rng()
    times = stratified(4, random)
    precision = torch.linalg.inv(posterior(sight, sight.look(latents(20, seed=9), times, random)))
    seen = sight.look(z, times, random, common=True)
    root = low_rank(sight.sensitivity(latents(500, seed=8), (0.1, 0.9), random))
    state = learner(True, z, name=name)

    def expected(precision: Tensor) -> Tensor:
        def error(matrix: Tensor) -> Tensor:
            return (root * torch.linalg.solve(matrix, root)).sum()

        parts = [error(precision) - error(precision + share(i)) for i in range(N)]
        return torch.stack(parts)

    def share(i: int) -> Tensor:
        h, v = seen.h[i].double(), seen.v[i].double()
        return h.T @ (v[:, None] * h) / len(v)

    torch.testing.assert_close(state.gains(), expected(precision), rtol=1e-6, atol=1e-10)
    state.take(3)
    torch.testing.assert_close(state.gains(), expected(precision + share(3)), rtol=1e-6, atol=1e-10)


def test_greedy_takes_the_best_after_all_before() -> None:
    z = latents(N)
    state, rows = learner(True, z), greedy([learner(True, z)], 5)
    for before, row in enumerate(rows.tolist()):
        gains = state.gains()
        gains[rows[:before]] = -torch.inf  # nobody is asked twice
        assert gains[row] == pytest.approx(float(gains.max()), rel=1e-9)
        state.take(row)


@pytest.mark.parametrize("acquisition", ["guidance", "bald"])
def test_copies_of_the_best_are_no_longer_best_once_it_is_chosen(acquisition: Acquisition) -> None:
    z = latents(N)
    best = int(chosen(acquisition, 1, z)[0])
    copies = torch.cat([z, z[best].expand(10, 5)])
    state = learner(acquisition == "guidance", copies)
    before = state.gains()[best]
    state.take(best)
    after = state.gains()
    torch.testing.assert_close(after[len(z) :], after[best].expand(10), rtol=1e-4, atol=0)
    assert after[best] < before
    assert int(after.argmax()) != best


def test_the_sum_of_gains_decides_for_attributes_together_and_known_labels_count_nothing() -> None:
    z = latents(N)
    missing = torch.ones(N, dtype=torch.bool)
    missing[::2] = False
    one, other = learner(True, z), learner(True, z, missing, "hair")
    assert bool((other.gains()[::2] == 0).all())
    best = int((one.gains() + other.gains()).argmax())
    assert int(greedy([learner(True, z), learner(True, z, missing, "hair")], 1)[0]) == best
    before = other.gains()
    other.take(0)  # its label is known already
    assert torch.equal(other.gains(), before)


def test_k_centre_takes_the_farthest_each_time() -> None:
    z = torch.tensor([[0.0], [1.0], [4.0], [10.0]])
    assert k_centre(z, 4, torch.tensor([[0.0]])).tolist() == [3, 2, 1, 0]
    assert k_centre(z, 1, torch.zeros(0, 1)).tolist() == [3]  # the mean is 3.75


@pytest.mark.parametrize("acquisition", ["entropy", "margin"])
def test_uncertainty_prefers_what_is_near_the_boundary(acquisition: Acquisition) -> None:
    z = latents(400)
    p = torch.sigmoid(classifier()(z, torch.zeros(400))["hat"])
    doubt = (p - 0.5).abs()
    picked = chosen(acquisition, 5, z)
    assert doubt[picked].max() <= doubt.sort().values[49]  # among the ten times as many most uncertain


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_what_is_chosen_is_missing_distinct_and_the_same_again(acquisition: Acquisition) -> None:
    missing = torch.ones(N, 1, dtype=torch.bool)
    missing[:20] = False
    rows = chosen(acquisition, 30, missing=missing)
    assert rows.shape == (30,)
    assert len(set(rows.tolist())) == 30
    assert int(rows.min()) >= 20
    assert torch.equal(rows, chosen(acquisition, 30, missing=missing))
    every = chosen(acquisition, 40, missing=missing)
    assert sorted(every.tolist()) == list(range(20, 60))


def test_another_seed_draws_others() -> None:
    assert not torch.equal(chosen("random", 10), chosen("random", 10, seed=1))


def test_what_cannot_be_chosen_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`num` must be 1 to 60, the latents without a label, got 61"):
        chosen("random", 61)
    with pytest.raises(ValueError, match=r"`band` must be noise levels"):
        chosen("guidance", 5, band=(0.9, 0.1))
    with pytest.raises(ValueError, match=r"`acquisition` must be one of guidance, .* got 'luck'"):
        chosen("luck", 5)  # type: ignore[arg-type]
    z, yes = latents(9), torch.ones(9, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"asks a classifier, got none; give one, or choose coverage"):
        choose("bald", 2, z, yes, z, yes, ["hat"])
