"""What every metric promises: chunks do not matter, nor how many processes there are; reset, merge and state_dict.

Run as a program, with a rank and a folder, this file is one of two processes that together see all rows.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lcg.guidance import Formula, parse, parse_edit
from lcg.metrics.accuracy import attribute_accuracy, joint_accuracy, proportion
from lcg.metrics.attribute_metric import AttributeAccuracy
from lcg.metrics.calibration import BandedCalibration, expected_calibration_error
from lcg.metrics.formula_metric import FormulaSatisfaction, satisfaction
from lcg.metrics.frechet import frechet_between
from lcg.metrics.neighbour_metric import GatheredDensityCoverage, GatheredDiversity, GatheredPrecisionRecall
from lcg.metrics.neighbours import density_coverage, diversity, precision_recall
from lcg.metrics.pair_metric import Identity, PerceptualDistance
from lcg.metrics.pareto import pareto_area
from lcg.metrics.pareto_metric import ParetoArea
from lcg.metrics.perceptual import perceptual_distance
from lcg.metrics.preservation import edit_success, kept
from lcg.metrics.preservation_metric import Preservation
from lcg.metrics.sharpness import NearestReal
from lcg.metrics.sharpness_metric import SharpShare
from lcg.metrics.side_effect_metric import DisentangledEditStrength, EditCounts, SideEffectMatrix
from lcg.metrics.side_effects import accuracy_gain, disentangled_edit_strength, identity_similarity, side_effects
from lcg.metrics.streaming import StreamingFrechet
from lcg.metrics.zero_shot import ZeroShotAccuracy
from lcg.schema import Attribute, Schema

if TYPE_CHECKING:
    from torchmetrics import Metric  # in a process of its own it is lcg that has to import it; see lcg/__init__.py

SCHEMA = Schema(
    (
        Attribute("hat"),
        Attribute("smile"),
        Attribute("hair", "categorical", ("blond", "red"), applies_if={"hat": False}),
        Attribute("age", "continuous"),
        Attribute("glasses"),
    )
)
N = 63
CHUNKS = (20, 1, 30, 12)
SPLITS = {"37 and 26": (37, 26), "63 and 0": (63, 0), "0 and 63": (0, 63)}


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(seed: int, n: int = N) -> Tensor:
    y = torch.randint(2, (n, 5), generator=torch.Generator().manual_seed(seed)).float()
    y[:, 3] = normal(n, seed=seed + 100).float()
    y[y[:, 0] == 1, 2] = torch.nan
    return y


def share(hits: Tensor) -> list[float]:
    return [*proportion(hits), len(hits)]


def mean(values: Tensor) -> list[float]:
    return [float(values.mean()), float(values.std() / len(values) ** 0.5), len(values)]


class Batches:
    """Stands in for a metric and notes what it would be given."""

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append((args, kwargs))


def numbers(value: Any) -> list[float]:
    """All numbers of what `compute` gives, in order."""
    if isinstance(value, Tensor):
        return value.double().flatten().tolist()
    return [number for part in (value.values() if isinstance(value, dict) else value) for number in numbers(part)]


def embed(x: Tensor) -> Tensor:
    return x.flatten(1)[:, :6]


def maps(x: Tensor) -> list[Tensor]:
    return [x, x[:, :, ::2, ::2] - 0.5]


@dataclass(frozen=True)
class Case:
    """A metric, how it takes some of the 63 rows in, and what the pure functions say of all of them."""

    make: Callable[[], Metric]
    feed: Callable[[Any, slice], None]
    expected: Callable[[], list[float]]


# --- the cases ---

BEFORE, AFTER, WANTED = labels(1), labels(2), labels(3)
WANTED[::4, 1] = torch.nan
X, Y = normal(N, 3, 4, 4, seed=4), normal(N, 3, 4, 4, seed=5)
REAL, GENERATED = normal(N, 5, seed=6), 2 * normal(N, 5, seed=7) + 1
OUTSIDE = torch.linspace(0, 0.1, N, dtype=torch.float64)
FORMULA = parse("~hat & (hair=red | smile)", SCHEMA)
EDIT = parse_edit("+smile", SCHEMA)
UNSEEN, SEEN = parse("hat & age>9", SCHEMA), parse("smile", SCHEMA)  # no one is as old as 9
ALSO_UNSEEN = parse("smile & age>8 | glasses & age<-7", SCHEMA)
ASKED = AFTER.clone()
ASKED[::2, 3] = 10
NEAREST = NearestReal(REAL, 2.5)
PRESENT, KEPT = (torch.rand(3, N, generator=torch.Generator().manual_seed(seed)) < 0.6 for seed in (8, 9))
LOGITS = {"hat": 2 * normal(N, seed=10), "smile": normal(N, seed=11), "glasses": normal(N, seed=12)}
HEADS = {**LOGITS, "hair": normal(N, 2, seed=13), "age": normal(N, 2, seed=14)}
WANT = {"hat": 1.0, "smile": 0.0}


def preserved() -> list[float]:
    present, coarse = EDIT.holds(AFTER), kept(SCHEMA, BEFORE, AFTER, ["smile"])
    fine = kept(SCHEMA, BEFORE, AFTER, ["smile"], ("binary", "categorical"))
    shares = share(present) + share(coarse) + share(fine) + share(edit_success(present, coarse, OUTSIDE))
    return shares + mean(OUTSIDE)


def accuracies() -> list[float]:
    found = [*attribute_accuracy(SCHEMA, AFTER, WANTED).values(), joint_accuracy(SCHEMA, AFTER, WANTED)]
    return [number for p, n in found for number in (p, math.sqrt(p * (1 - p) / n), n)]


def effects() -> list[float]:
    found = side_effects(SCHEMA, dict.fromkeys(WANT, (BEFORE, AFTER)))
    triples = zip(found.share.flatten().tolist(), found.count.flatten().tolist(), strict=True)
    return [number for p, n in triples for number in (p, math.sqrt(p * (1 - p) / n) if n else math.nan, n)]


def strengths() -> list[float]:
    found = side_effects(SCHEMA, dict.fromkeys(WANT, (BEFORE, AFTER)))
    columns = {name: SCHEMA.index(name) for name in WANT}
    gains = {name: accuracy_gain(BEFORE[:, j], AFTER[:, j], WANT[name]) for name, j in columns.items()}
    each = disentangled_edit_strength(found, gains)
    return [sum(each.values()) / 2, *each.values()]


def unseen() -> list[float]:
    p, q = (proportion(formula.holds(ASKED)) for formula in (UNSEEN, ALSO_UNSEEN))
    return [(p[0] + q[0]) / 2, math.hypot(p[1], q[1]) / 2, 2 * N]


def calibration() -> list[float]:
    """Both bands hold all rows, the second with less confidence."""
    accuracy, ece = [], []
    for name in ("hat", "smile", "hair", "glasses"):
        known = ~BEFORE[:, SCHEMA.index(name)].isnan()
        y = BEFORE[known, SCHEMA.index(name)]
        for scale in (1, 0.5):
            u = (scale * HEADS[name][known]).float()
            p = u.softmax(-1) if u.ndim == 2 else torch.stack((torch.sigmoid(-u), torch.sigmoid(u)), dim=1)
            confidence, predicted = p.max(1)
            bins = torch.nn.functional.one_hot((confidence * 15).long(), 15).double()
            right = (predicted == y).double()
            accuracy.append(float(right.mean()))
            ece.append(float(expected_calibration_error(bins.sum(0), confidence.double() @ bins, right @ bins)))
    return [*accuracy, *ece]


def feed_calibration(metric: BandedCalibration, rows: slice) -> None:
    for band, scale in enumerate((1, 0.5)):
        metric.update({name: scale * head[rows] for name, head in HEADS.items()}, BEFORE[rows], band)


def feed_edits(metric: EditCounts, rows: slice) -> None:
    for name in WANT:
        metric.update(name, BEFORE[rows], AFTER[rows])


def feed_sides(metric: Any, rows: slice) -> None:
    metric.update(REAL[rows], real=True)
    metric.update(GENERATED[rows], real=False)


def feed_formulas(metric: ZeroShotAccuracy, rows: slice) -> None:
    metric.update(BEFORE[rows], asked=None)
    for formula in (UNSEEN, SEEN, ALSO_UNSEEN):
        metric.update(ASKED[rows], asked=formula)


def fidelity() -> list[float]:
    found = precision_recall(REAL, GENERATED)
    return [found.precision, found.recall]


def density() -> list[float]:
    found = density_coverage(REAL, GENERATED)
    return [found.density, found.coverage]


def satisfied() -> list[float]:
    return [number for hits in satisfaction(SCHEMA, FORMULA, AFTER).values() for number in share(hits)]


FORMULAS: list[Formula] = [UNSEEN, SEEN, ALSO_UNSEEN]
CASES = {
    "attribute accuracy": Case(
        lambda: AttributeAccuracy(SCHEMA), lambda m, rows: m.update(AFTER[rows], WANTED[rows]), accuracies
    ),
    "formula satisfaction": Case(
        lambda: FormulaSatisfaction(SCHEMA, FORMULA), lambda m, rows: m.update(AFTER[rows]), satisfied
    ),
    "zero-shot accuracy": Case(lambda: ZeroShotAccuracy(SCHEMA, FORMULAS), feed_formulas, unseen),
    "preservation": Case(
        lambda: Preservation(SCHEMA, EDIT),
        lambda m, rows: m.update(BEFORE[rows], AFTER[rows], OUTSIDE[rows]),
        preserved,
    ),
    "side effects": Case(lambda: SideEffectMatrix(SCHEMA, tuple(WANT)), feed_edits, effects),
    "edit strength": Case(lambda: DisentangledEditStrength(SCHEMA, WANT), feed_edits, strengths),
    "identity": Case(
        lambda: Identity(embed),
        lambda m, rows: m.update(X[rows], Y[rows]),
        lambda: mean(identity_similarity(embed, X, Y)),
    ),
    "perceptual distance": Case(
        lambda: PerceptualDistance(maps),
        lambda m, rows: m.update(X[rows], Y[rows]),
        lambda: mean(perceptual_distance(maps, X, Y)),
    ),
    "precision and recall": Case(lambda: GatheredPrecisionRecall(5), feed_sides, fidelity),
    "density and coverage": Case(lambda: GatheredDensityCoverage(5), feed_sides, density),
    "diversity": Case(
        lambda: GatheredDiversity(5), lambda m, rows: m.update(GENERATED[rows]), lambda: [diversity(GENERATED)]
    ),
    "frechet distance": Case(lambda: StreamingFrechet(5), feed_sides, lambda: [frechet_between(REAL, GENERATED)]),
    "sharp share": Case(
        lambda: SharpShare(NEAREST),
        lambda m, rows: m.update(GENERATED[rows], SEEN.holds(AFTER[rows])),
        lambda: share(NEAREST.near(GENERATED) & SEEN.holds(AFTER)),
    ),
    "pareto area": Case(
        lambda: ParetoArea(3),
        lambda m, rows: m.update(PRESENT[:, rows], KEPT[:, rows]),
        lambda: [pareto_area(*(hits.double().mean(1).numpy() for hits in (PRESENT, KEPT)))],
    ),
    "calibration": Case(lambda: BandedCalibration(SCHEMA, bands=2), feed_calibration, calibration),
}
pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric .* was called before")
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def close(values: list[float]) -> Any:
    return pytest.approx(values, rel=1e-9, abs=1e-9, nan_ok=True)


def whole(case: Case) -> Metric:
    metric = case.make()
    case.feed(metric, slice(0, N))
    return metric


# --- one process ---

OF_SEVERAL_UPDATES = (
    "zero-shot accuracy",
    "edit strength",
    "precision and recall",
    "density and coverage",
    "frechet distance",
)


@every_case
def test_it_is_the_pure_function_of_all_rows_whatever_the_chunks(case: Case) -> None:
    metric, start = case.make(), 0
    for size in CHUNKS:
        case.feed(metric, slice(start, start + size))
        start += size
    assert start == N
    expected = case.expected()
    assert any(number for number in expected if not math.isnan(number))
    tolerance = 1e-6 if isinstance(metric, BandedCalibration) else 1e-9  # confidences are float32
    assert numbers(metric.compute()) == pytest.approx(expected, rel=tolerance, abs=tolerance, nan_ok=True)


@every_case
def test_reset_forgets(case: Case) -> None:
    metric = case.make()
    case.feed(metric, slice(0, 40))
    metric.reset()
    case.feed(metric, slice(0, N))
    assert numbers(metric.compute()) == close(numbers(whole(case).compute()))


@every_case
def test_parts_merge_to_the_whole(case: Case) -> None:
    first, second = case.make(), case.make()
    case.feed(first, slice(0, 37))
    case.feed(second, slice(37, N))
    first.merge_state(second)
    assert numbers(first.compute()) == close(numbers(whole(case).compute()))


@every_case
def test_state_goes_through_a_checkpoint_that_holds_tensors_only(case: Case, tmp_path: Path) -> None:
    metric = case.make()
    metric.persistent(True)
    case.feed(metric, slice(0, 37))
    torch.save(metric.state_dict(), tmp_path / "state.pt")
    restored = case.make()
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    case.feed(restored, slice(37, N))
    assert numbers(restored.compute()) == close(numbers(whole(case).compute()))


@pytest.mark.parametrize("name", [name for name in CASES if name not in OF_SEVERAL_UPDATES])
def test_forward_gives_the_batch_and_keeps_the_whole(name: str) -> None:
    case, batches = CASES[name], Batches()
    metric, alone = case.make(), case.make()
    case.feed(metric, slice(0, 20))
    case.feed(batches, slice(20, N))
    for args, kwargs in batches.seen:
        alone.reset()
        alone.update(*args, **kwargs)
        assert numbers(metric(*args, **kwargs)) == close(numbers(alone.compute()))
    assert numbers(metric.compute()) == close(numbers(whole(case).compute()))


@every_case
def test_state_grows_only_where_every_sample_is_needed(case: Case) -> None:
    metric, sizes = case.make(), []
    for start in (0, 21, 42):
        case.feed(metric, slice(start, start + 21))
        states = metric.metric_state.values()
        sizes.append(sum(sum(x.numel() for x in s) if isinstance(s, list) else s.numel() for s in states))
    gathers = isinstance(metric, GatheredPrecisionRecall | GatheredDensityCoverage | GatheredDiversity)
    assert sizes[0] * 3 == sizes[2] if gathers else len(set(sizes)) == 1


@every_case
def test_nothing_can_be_computed_from_nothing(case: Case) -> None:
    metric = case.make()
    if isinstance(metric, BandedCalibration):
        assert all(math.isnan(number) for number in numbers(metric.compute()))  # as of a band without rows
        return
    with pytest.raises(ValueError, match=r"has taken in no rows to compute from; call `update`|got N=0, F=5; take"):
        metric.compute()


# --- two processes ---


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, list[float]]]]:
    """What each of two processes says, by split and case; one pair of processes for all."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(folder)], stderr=subprocess.PIPE, text=True, env=environment
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_uneven_counts_agree_with_one(
    of_two: list[dict[str, dict[str, list[float]]]], name: str, split: str
) -> None:
    first, second = (said[split][name] for said in of_two)
    assert first == pytest.approx(second, rel=0, abs=0, nan_ok=True)
    assert first == close(numbers(whole(CASES[name]).compute()))


def test_nothing_on_two_processes_is_refused_on_both(of_two: list[dict[str, dict[str, list[float]]]]) -> None:
    assert [said["nothing"] for said in of_two] == [{"refused": [len(CASES) - 1]}] * 2  # calibration gives NaN


def main(rank: int, folder: Path) -> None:
    """One of the two processes; one without rows never calls `update`."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    said: dict[str, dict[str, list[float]]] = {"nothing": {"refused": [0]}}
    for split, (first, _) in SPLITS.items():
        rows = slice(0, first) if rank == 0 else slice(first, N)
        said[split] = {}
        for name, case in CASES.items():
            metric = case.make()
            if rows.start < rows.stop:
                case.feed(metric, rows)
            own = [numbers(state) for state in metric.metric_state.values()]
            said[split][name] = numbers(metric.compute())
            assert [numbers(state) for state in metric.metric_state.values()] == own, name  # each has its own part back
    for case in CASES.values():
        try:
            case.make().compute()
        except ValueError:
            said["nothing"]["refused"][0] += 1
    (folder / f"{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
