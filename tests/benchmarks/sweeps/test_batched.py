"""What is sampled together is what each benchmark would have sampled by itself."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from lcg.baselines import LatentArithmetic
from lcg.benchmarks.benchmark import Benchmark
from lcg.benchmarks.cells import Cell
from lcg.benchmarks.folder import Folder, read_tensors
from lcg.benchmarks.jobs import assemble, bench_job
from lcg.benchmarks.setting import Setting
from lcg.benchmarks.sweeps import batched
from lcg.benchmarks.sweeps.batched import sample_together
from lcg.benchmarks.sweeps.inside import Asked
from lcg.benchmarks.tasks import Task
from lcg.job_parser import JobParser

Assembled = tuple[Benchmark, list[Task], list[int]]
Assemble = Callable[..., list[Assembled]]


@pytest.fixture
def assembled(bench_words: Callable, tmp_path: Path) -> Assemble:
    """Benchmarks of the same tasks with different options, in one setting and one folder."""
    parser = JobParser("bench", bench_job)

    def make(tasks: list[str], *variants: Sequence[str]) -> list[Assembled]:
        setting, found = None, []
        for number, more in enumerate(variants):
            words = bench_words(tmp_path / str(number), tasks, "--sizes.samples", "8", *more, baselines="{}")
            config = parser.parse(words[1:])
            asked = Asked(None, config, parser.values(config))  # type: ignore[arg-type]
            setting = setting or asked.load(tmp_path / "cells")
            tasks_read, benchmark = assemble(asked.job, setting)
            benchmark.folder.prepare()
            found.append((benchmark, tasks_read, asked.job.seeds))
        return found

    return make


def chunks(benchmarks: list[Assembled]) -> list[tuple[Benchmark, Cell, range, Path]]:
    """All of lcg's, with their files."""
    return [
        (benchmark, cell, rows, benchmark.made(cell, rows))
        for benchmark, tasks, seeds in benchmarks
        for cell in benchmark.plan(tasks, seeds)
        if isinstance(cell, Cell) and cell.method == "lcg"
        for rows in cell.chunks(benchmark.sizes.chunk)
    ]


def same_as_alone(benchmarks: list[Assembled], expected: int) -> None:
    """Every chunk is there and as its own benchmark makes it; so are the evaluations that it is told to have cost."""
    found = chunks(benchmarks)
    assert len({path for *_, path in found}) == expected
    for _, cell, rows, path in found:
        alone = cell.make(rows)
        tensors, about = read_tensors(path)
        assert tensors["z_0"].shape == alone.z_0.shape
        assert (tensors["z_0"] - alone.z_0.cpu()).abs().max() < 2e-4
        assert (about["cost"] is None) == (alone.cost is None)
        if alone.cost is not None:
            assert about["cost"]["evaluations"] == alone.cost.evaluations
        assert about["said"] == [[f.metric, f.value, pytest.approx(f.stderr, nan_ok=True)] for f in alone.said]


EDITS = [["--editing.weight", "8"], ["--editing.strength", "1"], ["--editing.keep_weight", "0"]]


def test_edits_are_those_of_each_setting(assembled: Assemble) -> None:
    benchmarks = assembled(["edit/+beard +glasses"], [], *EDITS)
    sample_together(benchmarks)
    same_as_alone(benchmarks, 4)


def test_small_batches_make_the_same(assembled: Assemble, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched, "ROWS", 13)  # two settings of six sources
    benchmarks = assembled(["edit/+beard"], [], *EDITS)
    sample_together(benchmarks)
    same_as_alone(benchmarks, 4)


def test_the_strengths_of_a_trade_off_are_rows_too(assembled: Assemble) -> None:
    benchmarks = assembled(["tradeoff/+beard +glasses"], [], EDITS[0])
    sample_together(benchmarks)
    same_as_alone(benchmarks, 2)


def test_noise_is_that_of_the_source(assembled: Assemble) -> None:
    start = ["--editing.start", "noising", "--source_formula", "~hat"]
    benchmarks = assembled(["synthetic/+glasses"], start, [*start, *EDITS[0]])
    sample_together(benchmarks)
    same_as_alone(benchmarks, 2)


def test_formulas_are_those_of_each_weight(assembled: Assemble) -> None:
    """With draws that are repeated, and a weight for which the solver falls back to first order."""
    variants = [["--guidance.single", "1"], ["--guidance.single", "40"], ["--guidance.rise", "1"]]
    benchmarks = assembled(["generate/glasses & hat", "scale/hat"], *variants, ["--guidance.several", "1"])
    sample_together(benchmarks)
    pipelines = [benchmark.pipeline for benchmark, _, _ in benchmarks]
    orders = {p.sampling.build(p.denoiser, w).order for p in pipelines for w in (1.0, 40.0)}  # type: ignore[attr-defined]
    assert orders == {1, 2}
    same_as_alone(benchmarks, 8)


def test_other_differences_are_not_for_one_batch(assembled: Assemble) -> None:
    tasks = ["edit/+beard", "generate/glasses"]
    variants = [["--editing.steps", "5", "--guidance.attempts", "2"], ["--editing.dependence", "joint"]]
    benchmarks = assembled(tasks, *variants, ["--editing.steps", "6", "--guidance.particles", "4"])
    sample_together(benchmarks)
    assert not any(path.exists() for *_, path in chunks(benchmarks))


def test_what_is_there_is_not_made_again(assembled: Assemble) -> None:
    benchmarks = assembled(["edit/+beard"], [], *EDITS)
    sample_together(benchmarks[:2])
    before = {path: path.stat().st_mtime_ns for *_, path in chunks(benchmarks[:2])}
    sample_together(benchmarks[:3])  # one is missing: it is as well off alone
    assert [path.exists() for *_, path in chunks(benchmarks)] == [True, True, False, False]
    sample_together(benchmarks)
    assert {path: path.stat().st_mtime_ns for *_, path in chunks(benchmarks[:2])} == before
    same_as_alone(benchmarks, 4)


def test_a_setting_that_breaks_a_batch_breaks_no_other(assembled: Assemble) -> None:
    benchmarks = assembled(["edit/+beard"], [], ["--editing.weight", "1e38"], EDITS[0])
    sample_together(benchmarks)
    assert not any(path.exists() for *_, path in chunks(benchmarks))
    (_, cell, rows, _), (_, broken, _, _), _ = chunks(benchmarks)
    assert torch.isfinite(cell.make(rows).z_0).all()
    with pytest.raises(ValueError, match="must be finite"):
        broken.make(rows)


# --- what benchmarks in one setting share ---


def test_baselines_with_equal_options_learn_once(demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting.load(
        demo.store, demo.prior, demo.classifier, None, None, None, str(tmp_path), torch.device("cpu"), {}
    )
    learnt: list[LatentArithmetic] = []
    whole = LatentArithmetic.fit
    monkeypatch.setattr(LatentArithmetic, "fit", lambda self, training: learnt.append(self) or whole(self, training))
    first, again, other = (setting.fit(LatentArithmetic(direction=d)) for d in ("means", "means", "probe"))
    assert first is again is learnt[0] and other is learnt[1] and len(learnt) == 2


def test_benchmarks_share_their_cells_and_keep_their_pictures(tmp_path: Path) -> None:
    cells = tmp_path / "cells"
    one, two = (Folder(tmp_path / name, {"always": 1, "a": 2}, cells) for name in ("one", "two"))
    one.prepare()
    assert one.path(["made", 0], ("a",)) == two.path(["made", 0], ("a",)) and one.path(["x"], ()).parent == cells
    assert one.own(["picture"], ("a",)) == tmp_path / "one" / "cells" / two.path(["picture"], ("a",)).name
    assert cells.is_dir() and (tmp_path / "one" / "cells").is_dir() and (tmp_path / "one" / "pictures").is_dir()
    alone = Folder(tmp_path / "one", {"always": 1, "a": 2})
    assert alone.own(["picture"], ("a",)) == alone.path(["picture"], ("a",))
