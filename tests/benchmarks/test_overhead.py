"""What it costs that a benchmark can be stopped: files, plans and ranks, beside the computations by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lcg.benchmarks.benchmark import Benchmark, Sizes, seed_range
from lcg.benchmarks.cells import Cell
from lcg.benchmarks.evaluator import Evaluator
from lcg.benchmarks.folder import read_json
from lcg.benchmarks.jobs import Job, assemble
from lcg.benchmarks.measures import STANDARD
from lcg.benchmarks.methods import LCG
from lcg.benchmarks.setting import Setting
from lcg.benchmarks.tasks import Generate
from lcg.benchmarks.tracking import Tracking
from lcg.benchmarks.view import View
from lcg.metrics.judge import AvatarJudge
from lcg.metrics.sharpness import NearestReal
from lcg.modules.pieces import Crew, Ranks
from lcg.pipeline import Pipeline
from lcg.settings import Editing, Guidance, Sampling

FORMULAS = ["generate/hat & ~beard", "generate/glasses", "generate/beard & glasses & smile"]
SHARE = 0.05
"""Of the time of the computations, at most."""


class InMemory(View):
    """A view of what has just been seen."""

    def each(self, name: str) -> Iterator[Tensor]:
        return iter([entry[name] for entry in self.files if name in entry])


def bare(benchmark: Benchmark, cells: list[Cell]) -> list[float]:
    """The same samples, looked at and measured in the same chunks, without files."""
    pipeline, evaluator, values = benchmark.pipeline, benchmark.evaluator, []
    for cell in cells:
        assert isinstance(cell.task, Generate)
        seen = []
        for rows in cell.chunks(benchmark.sizes.chunk):
            with torch.no_grad():
                z_0 = pipeline.draw(seed_range(cell.seed, rows), cell.task.formula).z_0
                found = evaluator.see(pipeline.decode(z_0))
                near = evaluator.nearest.near(z_0)
            seen.append({"labels": found.labels, "features": found.features, "near": near})
        view = InMemory(cell.frames[0], 0, seen, evaluator)
        values += [figure.value for measure in benchmark.measures for figure in measure.figures(view)]
    return values


class Clock:
    """CPU time of this process within some functions; within one of them, the others do not count again."""

    def __init__(self) -> None:
        self.seconds, self.depth = 0.0, 0

    @contextmanager
    def running(self, sign: int) -> Iterator[None]:
        self.depth += sign
        outermost, begun = self.depth == (1 if sign > 0 else 0), time.process_time()
        try:
            yield
        finally:
            self.depth -= sign
            if outermost:
                self.seconds += sign * (time.process_time() - begun)

    def around(self, function: Callable, sign: int = 1) -> Callable:
        """The function, its time counted, or taken off again."""

        def timed(*args: object, **options: object) -> object:
            with self.running(sign):
                found = function(*args, **options)
                return list(found) if isinstance(found, Iterator) else found

        return timed


@pytest.mark.slow
def test_what_is_not_sampling_and_measuring_takes_a_twentieth_at_most(
    demo, small_judge: Callable[[int], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, cpu = AvatarJudge(small_judge(0)), torch.device("cpu")
    setting = Setting.load(demo.store, demo.prior, demo.classifier, None, judge, None, str(tmp_path / "cache"), cpu, {})
    job = Job(
        tasks=FORMULAS,
        out=str(tmp_path / "out"),
        attributes=[],
        source_formula="~hat",
        seeds=[0],
        sizes=Sizes(samples=512, unconditional=32, references=512, neighbours=2048),
        metrics=None,
        sampling=Sampling(),
        guidance=Guidance(),
        editing=Editing(),
        variations={},
        baselines={},
        save_images=False,
        tracking=Tracking(),
        title="",
        notes=[],
        commands=[],
    )
    tasks, benchmark = assemble(job, setting)
    benchmark.folder.prepare()
    crew = Crew(Ranks(accelerator="cpu"))
    crew.run("real images", benchmark.looking(tasks, job.seeds))
    cells = [cell for cell in benchmark.plan(tasks, job.seeds) if cell.method == "lcg"]
    assert [cell.task.name for cell in cells] == FORMULAS

    # Two runs are compared by their results only: on a busy machine their times differ by more than what is sought.
    clock = Clock()
    works = [(LCG, "generate"), (Pipeline, "decode"), (Evaluator, "see"), (NearestReal, "near")]
    with monkeypatch.context() as patch:
        for kind, name in [*works, *((measure, "figures") for measure in STANDARD)]:
            patch.setattr(kind, name, clock.around(getattr(kind, name)))
        patch.setattr(View, "each", clock.around(View.each, -1))  # reads files
        begun = time.process_time()
        crew.run("samples", benchmark.sampling(cells))
        crew.run("figures", benchmark.measuring(cells))
        whole = time.process_time() - begun
    overhead = whole / clock.seconds - 1
    print(f"{whole:.2f} s of CPU in the job, {clock.seconds:.2f} s of which samples and figures: {overhead:+.2%}")
    assert 0 < overhead < SHARE

    said = ("log_p_formula", "ess")  # by the method, not by a measure
    rows = [row for cell in cells for row in read_json(benchmark.figures(cell))["rows"]]
    assert [row[2] for row in rows if row[1] not in said] == bare(benchmark, cells)
