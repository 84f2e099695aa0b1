"""Measurements alternate, last long enough, and are reported as medians."""

import os
import time
from collections.abc import Callable

import pytest
import torch

from lcg.benchmarks.speed.peak import gemm_rates
from lcg.benchmarks.speed.timing import Timing, alternate, clock_of, one_core, ratios, summary


class Machine:
    """Work that takes as long as it says, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def work(self, name: str, seconds: Callable[[], float]) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds()
            self.log.append(name)

        return run

    def clock(self) -> float:
        return self.now


def test_candidates_alternate_and_short_ones_are_repeated() -> None:
    machine = Machine()
    runs = {"short": machine.work("short", lambda: 0.25), "long": machine.work("long", lambda: 2.0)}
    found = alternate(runs, repeats=2, target=1.0, clock=machine.clock)
    once = ["short"] * 4 + ["long"]
    assert machine.log == ["short"] * 2 + ["long"] * 2 + once * 2
    assert found == {"short": Timing(0.25, [0.25, 0.25]), "long": Timing(2.0, [2.0, 2.0])}


def test_the_first_call_is_apart() -> None:
    machine = Machine()
    costs = iter([100.0, *[1.0] * 10])
    found = alternate({"compiled": machine.work("c", lambda: next(costs))}, 3, 1.0, machine.clock)
    assert found == {"compiled": Timing(100.0, [1.0, 1.0, 1.0])}


def test_a_slow_round_moves_neither_median_nor_ratio() -> None:
    machine = Machine()
    load = iter([1.0] * 4 + [1.0, 1.0, 9.0, 9.0, 1.0, 1.0])  # two warm-up calls each, then three rounds
    runs = {name: machine.work(name, lambda cost=cost: cost * next(load)) for name, cost in (("a", 4.0), ("b", 2.0))}
    found = alternate(runs, repeats=3, target=0.1, clock=machine.clock)
    a, b = found["a"].rounds, found["b"].rounds
    assert (a, b) == ([4.0, 36.0, 4.0], [2.0, 18.0, 2.0])
    assert summary(a)["median"] == 4.0
    assert ratios(a, b) == {"median": 2.0, "q1": 2.0, "q3": 2.0}


def test_quartiles() -> None:
    assert summary([5.0, 1.0, 3.0, 2.0, 4.0]) == {"median": 3.0, "q1": 2.0, "q3": 4.0}


def test_one_core_and_one_thread_and_all_of_them_again_after() -> None:
    threads = torch.get_num_threads()
    cores = os.sched_getaffinity(0)
    torch.set_num_threads(2)
    try:
        with one_core() as core:
            assert torch.get_num_threads() == 1
            assert os.sched_getaffinity(0) == {core}
        assert torch.get_num_threads() == 2
        assert os.sched_getaffinity(0) == cores
        with pytest.raises(KeyError), one_core():
            raise KeyError
        assert os.sched_getaffinity(0) == cores
    finally:
        torch.set_num_threads(threads)


def test_the_clock_of_the_cpu_does_not_run_while_others_do() -> None:
    clock = clock_of(torch.device("cpu"))
    before = clock()
    time.sleep(0.2)
    assert clock() - before < 0.1


def test_rates_of_products_are_those_of_the_fastest_repeat() -> None:
    machine = iter(float(i) for i in range(100))  # every look at the clock is a second later
    rates = gemm_rates([(2, 3, 4)], repeats=2, target=1.0, clock=lambda: next(machine))
    assert rates == {name: pytest.approx(48e-9) for name in ("2 x 3 x 4", "2 x 3 x 4, prepacked")}
