"""LACE's right-hand side, with the mapping once per attribute and with the mapping once."""

import pytest
import torch
from torch.autograd.functional import jacobian
from torch.nn import functional

from lcg.benchmarks.speed.candidate import difference
from lcg.benchmarks.speed.lace import Energies, EqualLinear, beta, energies, lace_runs, our_velocity, peer_velocity


def tiny(attributes: int = 3) -> Energies:
    return energies(6, attributes, (5, 4), torch.float64)


@pytest.mark.parametrize("batch", [1, 5])
def test_both_have_the_same_velocity(batch: int) -> None:
    nets = tiny()
    z = nets.noise(batch)
    wanted = peer_velocity(nets, z, 0.3)
    assert wanted.shape == z.shape and float(wanted.abs().max()) > 1e-6
    assert difference(our_velocity(nets, z, 0.3), wanted) < 1e-12


def test_the_velocity_is_that_of_the_equation() -> None:
    nets = tiny()
    z = nets.noise(1)

    def log_p(z: torch.Tensor) -> torch.Tensor:
        w = nets.mapping(z)
        terms = [functional.logsigmoid(s * f(w)).sum() for s, f in zip(nets.signs, nets.apart, strict=True)]
        return torch.stack(terms).sum()

    wanted = -0.5 * beta(0.3) * jacobian(log_p, z)
    assert difference(peer_velocity(nets, z, 0.3), wanted) < 1e-12


def test_beta_is_laces() -> None:
    assert beta(0.0) == pytest.approx(0.1) and beta(1.0) == pytest.approx(20.0)


def test_the_mapping_forgets_the_scale_of_z() -> None:
    nets = tiny()
    z = nets.noise(5)
    with torch.no_grad():
        assert difference(nets.mapping(10 * z), nets.mapping(z)) < 1e-6
        assert difference(nets.frozen(z), nets.mapping(z)) < 1e-12


def test_a_layer_of_the_mapping_keeps_the_scale() -> None:
    """E out^2 = 2 (1 + 0.2^2) / 2, the expectation being over weights."""
    torch.manual_seed(0)
    with torch.no_grad():
        out = EqualLinear(512)(torch.randn(512, 512))
    assert float(out.square().mean()) == pytest.approx(1.04, rel=0.03)


def test_the_peer_runs_the_mapping_once_per_attribute_and_lcg_once() -> None:
    nets = tiny(attributes=4)
    calls = []
    for mapping in (nets.mapping, nets.frozen):
        mapping.register_forward_hook(lambda *_: calls.append(1))
    counts = []
    for run in lace_runs(nets, 3).values():
        calls.clear()
        run()
        counts.append(len(calls))
    assert counts == [4, 1]
