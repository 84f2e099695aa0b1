"""Samples in chunks: the same whoever draws them and however often they are stopped, without memory that grows."""

from __future__ import annotations

import copy
import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lcg
from lcg import cli
from lcg.generation import generate_many, read_latents
from lcg.generation.job import placed
from lcg.modules.pieces import Ranks
from lcg.pipeline import Pipeline
from lcg.settings import Guidance, Sampling

FORMULA = "glasses & ~beard"
ROUNDING = 1e-4
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SHARDS = ["000000000", "000000008", "000000016"]


@pytest.fixture(scope="module")
def pipeline(demo) -> Pipeline:
    return lcg.load(demo.prior, demo.classifier, sampling=Sampling(steps=5))


@pytest.fixture(scope="module")
def three(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 samples in three chunks."""
    out = tmp_path_factory.mktemp("three")
    generate_many(pipeline, out, FORMULA, num=20, chunk=8)
    return out


def latents(out: Path) -> torch.Tensor:
    return torch.cat([z_0 for _, z_0 in read_latents(out)])


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "latents").glob("*")}


def images(out: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted((out / "images").glob("*.png"))])


def told(out: Path) -> dict:
    return json.loads((out / "provenance.json").read_text())


# --- which samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formula", [None, FORMULA])
def test_one_chunk_is_what_the_pipeline_generates_to_the_bit(
    pipeline: Pipeline, tmp_path: Path, formula: str | None
) -> None:
    generate_many(pipeline, tmp_path, formula, num=6, seed=3)
    samples = pipeline.generate(formula, 6, seed=3)
    ((seeds, z_0),) = read_latents(tmp_path)
    assert seeds.tolist() == list(samples.seeds) and torch.equal(z_0, samples.z_0)
    assert np.array_equal(images(tmp_path), samples.images)


def test_many_chunks_hold_the_samples_of_one_up_to_rounding(pipeline: Pipeline, three: Path) -> None:
    """Not to the bit: the products of matrices of other shapes add up in another order."""
    assert sorted(shards(three)) == [f"{first}.safetensors" for first in SHARDS]
    found, whole = latents(three), pipeline.generate(FORMULA, 20)
    assert (found - whole.z_0).abs().max() < ROUNDING < (found[1:] - found[:-1]).abs().max(dim=1).values.min()
    assert torch.cat([seeds for seeds, _ in read_latents(three)]).tolist() == list(range(20))
    assert np.abs(images(three).astype(int) - whole.images).max() <= 1


@pytest.mark.parametrize(("first", "same"), [(8, 0.0), (5, ROUNDING)], ids=["whole chunks", "across chunks"])
def test_samples_asked_for_alone_are_those_of_the_larger_run(
    pipeline: Pipeline, three: Path, tmp_path: Path, first: int, same: float
) -> None:
    generate_many(pipeline, tmp_path, FORMULA, num=12, seed=first, chunk=8)
    assert (latents(tmp_path) - latents(three)[first : first + 12]).abs().max() <= same


def test_particles_are_put_together_as_if_they_were_drawn_at_once(pipeline: Pipeline, tmp_path: Path) -> None:
    guidance = replace(pipeline.guidance, particles=4, extrapolate="never")
    pipeline = replace(pipeline, guidance=guidance)
    for name, chunk in (("one", 10), ("three", 4)):
        generate_many(pipeline, tmp_path / name, "glasses", num=10, chunk=chunk, images=False)
    one, many = (told(tmp_path / name) for name in ("one", "three"))
    for name in ("ess", "log_p_formula", "log_p_formula_stderr"):
        assert many[name] == pytest.approx(one[name], rel=1e-3), name
    draw = pipeline.draw(range(10), lcg.guidance.parse("glasses", pipeline.schema))
    assert one["ess"] == draw.ess and one["log_p_formula"] == pytest.approx(draw.log_p_formula)


# --- what is left -----------------------------------------------------------------------------------------------------


def test_what_is_left_tells_how_far_to_trust_the_samples(pipeline: Pipeline, three: Path) -> None:
    one = pipeline.draw(range(20), lcg.guidance.parse(FORMULA, pipeline.schema))
    provenance = told(three)
    assert provenance["drawn"] == one.drawn and provenance["log_p_formula"] == pytest.approx(one.log_p_formula)
    assert provenance["warnings"] == list(one.warnings)
    assert (provenance["chunk"], provenance["ranks"], provenance["found"]) == (8, 1, 0)
    with (three / "samples.csv").open() as file:
        rows = [(row["file"], int(row["seed"])) for row in csv.DictReader(file)]
    assert rows == [(f"images/{i:04d}.png", i) for i in range(20)]
    assert not list(three.rglob("*.tmp"))


def test_latents_alone_are_left_when_images_are_not_asked_for(
    pipeline: Pipeline, three: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_many(pipeline, tmp_path / "asked", FORMULA, num=20, chunk=8, images=False)
    monkeypatch.setattr("lcg.generation.many.IMAGES_UP_TO", 19)
    generate_many(pipeline, tmp_path / "large", FORMULA, num=20, chunk=8)
    for name in ("asked", "large"):
        out = tmp_path / name
        assert sorted(p.name for p in out.iterdir()) == ["latents", "provenance.json", "sheet.png"]
        assert shards(out) == shards(three) and (out / "sheet.png").read_bytes() == (three / "sheet.png").read_bytes()


@pytest.mark.parametrize("asked", ["true", "false"])
def test_the_sheet_shows_the_first_samples_only(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    monkeypatch.setattr("lcg.generation.many.SHOWN", 5)
    generate_many(pipeline, tmp_path, num=9, chunk=3, images=asked == "true")
    assert Image.open(tmp_path / "sheet.png").size == (5 * 130 - 2, 128)


# --- stopped ----------------------------------------------------------------------------------------------------------


def test_a_job_goes_on_with_what_is_missing_and_only_that(pipeline: Pipeline, three: Path, tmp_path: Path) -> None:
    drawn: list[list[int]] = []

    class Watched(Pipeline):
        def draw(self, seeds, *more):
            drawn.append(list(seeds))
            if seeds.start == self.__dict__.get("stop_at"):
                raise KeyboardInterrupt
            return super().draw(seeds, *more)

    watched = Watched(**{name: getattr(pipeline, name) for name in pipeline.__dataclass_fields__})
    object.__setattr__(watched, "stop_at", 8)
    with pytest.raises(KeyboardInterrupt):
        generate_many(watched, tmp_path, FORMULA, num=20, chunk=8)
    assert list(shards(tmp_path)) == ["000000000.safetensors"] and "seconds" not in told(tmp_path)
    (tmp_path / "latents" / ".000000008.safetensors.tmp").write_bytes(b"half")  # as a kill in mid-write leaves it
    object.__setattr__(watched, "stop_at", None)
    assert generate_many(watched, tmp_path, FORMULA, num=20, chunk=8)["found"] == 1
    assert shards(tmp_path) == shards(three) and np.array_equal(images(tmp_path), images(three))
    assert (tmp_path / "samples.csv").read_bytes() == (three / "samples.csv").read_bytes()
    times = ("seconds", "found")
    before = told(tmp_path)
    assert {**before, **dict.fromkeys(times)} == {**told(three), **dict.fromkeys(times)}
    assert [seeds[0] for seeds in drawn] == [0, 8, 8, 16]
    assert generate_many(watched, tmp_path, FORMULA, num=20, chunk=8)["found"] == 3
    assert len(drawn) == 4 and told(tmp_path) == before


def test_overwriting_leaves_nothing_of_the_earlier_run(pipeline: Pipeline, tmp_path: Path) -> None:
    generate_many(pipeline, tmp_path, FORMULA, num=9, chunk=4)
    (tmp_path / "latents" / "mine.txt").touch()
    generate_many(pipeline, tmp_path, num=3, overwrite=True)
    names = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*"))
    assert [name for name in names if not name.startswith("images")] == [
        "latents.safetensors",
        "latents/mine.txt",
        "provenance.json",
        "samples.csv",
        "sheet.png",
    ]
    assert len(images(tmp_path)) == 3 and told(tmp_path)["formula"] is None


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formula": "hat"}, "`formula` was 'glasses & ~beard', now it is 'hat'"),
        ({"num": 30}, "`seeds` was [0, 19], now it is [0, 29]"),
        ({"seed": 1}, "`seeds` was [0, 19], now it is [1, 20]"),
        ({"chunk": 10}, "`chunk` was 8, now it is 10"),
        ({"images": False}, "`images` was True, now it is False"),
        ({"sampling": Sampling(steps=6)}, "`sampling.steps` was 5, now it is 6"),
        ({"guidance": Guidance(attempts=2)}, "`guidance.attempts` was 4, now it is 2"),
    ],
)
def test_other_settings_than_those_of_the_folder_are_refused(
    pipeline: Pipeline, three: Path, change: dict[str, object], message: str
) -> None:
    settings = {name: change[name] for name in ("sampling", "guidance") if name in change}
    asked = {"formula": FORMULA, "num": 20, "chunk": 8} | {k: v for k, v in change.items() if k not in settings}
    before = {path: path.stat().st_mtime_ns for path in three.rglob("*.*")}
    with pytest.raises(FileExistsError) as refusal:
        generate_many(replace(pipeline, **settings), three, **asked)
    assert f"holds results already, made with other settings: {message}; give the same" in str(refusal.value)
    assert "choose another --out, or replace them with --overwrite true" in str(refusal.value)
    assert {path: path.stat().st_mtime_ns for path in three.rglob("*.*")} == before


def test_other_networks_than_those_of_the_folder_are_refused(pipeline: Pipeline, three: Path) -> None:
    other = copy.deepcopy(pipeline.denoiser)
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    with pytest.raises(FileExistsError, match=r"`networks\.prior` was"):
        generate_many(replace(pipeline, denoiser=other), three, FORMULA, num=20, chunk=8)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num": 0}, "`num` must be at least 1, got 0"),
        ({"chunk": 0}, "`chunk` must be at least 1, got 0"),
        ({"seed": -1}, r"`seed` must be at least 0 and `seed` \+ `num` at most 2\^32, got -1 and 64"),
        ({"seed": 2**32 - 63}, r"further seeds give the same samples again"),
        ({"formula": "hat & ~hat"}, "contradicts itself"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_touched(
    pipeline: Pipeline, tmp_path: Path, asked: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate_many(pipeline, tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_the_last_seed_there_is_can_be_asked_for(pipeline: Pipeline, tmp_path: Path) -> None:
    generate_many(pipeline, tmp_path, num=2, seed=2**32 - 2)
    z_0 = latents(tmp_path)
    assert not torch.equal(z_0[0], z_0[1])


def test_a_damaged_file_is_named_and_can_be_made_again(pipeline: Pipeline, three: Path, tmp_path: Path) -> None:
    generate_many(pipeline, tmp_path, FORMULA, num=20, chunk=8)
    bad = tmp_path / "latents" / "000000008.safetensors"
    bad.write_bytes(bad.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"000000008\.safetensors is damaged .* remove it and generate again"):
        latents(tmp_path)
    bad.unlink()
    generate_many(pipeline, tmp_path, FORMULA, num=20, chunk=8)
    assert shards(tmp_path) == shards(three)


def test_where_nothing_was_generated_nothing_is_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no latents in .*; make them with `lcg generate --out"):
        next(read_latents(tmp_path))


@pytest.mark.parametrize(
    ("device", "ranks", "expected"),
    [
        ("auto", Ranks(2, accelerator="cpu"), ("cpu", Ranks(2, accelerator="cpu"))),
        ("cpu", Ranks(2), ("cpu", Ranks(2, accelerator="cpu"))),
        ("cpu", Ranks(1, 3, "cpu"), ("cpu", Ranks(1, 3, "cpu"))),
    ],
)
def test_the_device_is_that_of_every_rank(device: str, ranks: Ranks, expected: tuple[str, Ranks]) -> None:
    assert placed(device, ranks) == expected


def test_cuda_is_a_device_per_rank_and_a_numbered_one_that_of_a_single_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert placed("cuda", Ranks(4)) == placed("auto", Ranks(4, accelerator="gpu")) == ("cuda:2", Ranks(4, 1, "gpu"))
    assert placed("cuda:3", Ranks()) == ("cuda:3", Ranks(accelerator="gpu"))
    for device, ranks in (("cuda", Ranks(accelerator="cpu")), ("cpu", Ranks(accelerator="gpu")), ("cuda:1", Ranks(2))):
        with pytest.raises(ValueError, match=f"`device` is '{device}', `ranks` asks for .*; leave out --device"):
            placed(device, ranks)


# --- processes --------------------------------------------------------------------------------------------------------


def words(demo, out: Path, *more: str) -> list[str]:
    asked = ("--formula", FORMULA, "--num", "200", "--chunk", "16", "--sampling.steps", "5", "--device", "cpu")
    return ["generate", *demo.networks, *asked, "--out", str(out), *more]


@pytest.fixture(scope="module")
def undisturbed(demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    run(words(demo, out), out.parent)
    return out


def started(words: list[str], folder: Path, *launcher: str) -> subprocess.Popen:
    log = (folder / "log").open("ab")
    command = [sys.executable, *(launcher or ("-m", "lcg")), *words]
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=ALONE, cwd=folder)


def run(words: list[str], folder: Path, *launcher: str) -> None:
    process = started(words, folder, *launcher)
    try:
        assert process.wait(timeout=300) == 0, (folder / "log").read_text()[-3000:]
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def same(out: Path, undisturbed: Path) -> None:
    assert len(shards(undisturbed)) == 13 and shards(out) == shards(undisturbed)
    for name in ("samples.csv", "sheet.png"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes(), name
    pictures = [{p.name: p.read_bytes() for p in (o / "images").iterdir()} for o in (out, undisturbed)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 200
    other = ("seconds", "found", "ranks")
    assert {k: v for k, v in told(out).items() if k not in other} == {
        k: v for k, v in told(undisturbed).items() if k not in other
    }


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "lcg")])
def test_two_ranks_leave_the_same_bytes(demo, undisturbed: Path, tmp_path: Path, launcher: tuple[str, ...]) -> None:
    run(words(demo, tmp_path / "out", "--ranks.devices", "2"), tmp_path, *launcher)
    same(tmp_path / "out", undisturbed)
    assert told(tmp_path / "out")["ranks"] == 2


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_with_another_number_of_ranks_to_the_same_bytes(
    demo, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for count, more in ((3, ()), (8, ("--ranks.devices", "2"))):
        process = started(words(demo, out, *more), tmp_path)
        while len(list(out.glob("latents/0*"))) < count and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "it was faster than the test"
        kill(process)
        assert count <= len(list(out.glob("latents/0*"))) < 13
    run(words(demo, out), tmp_path)
    same(out, undisturbed)
    assert told(out)["found"] >= 8


def test_a_launcher_that_the_ranks_know_nothing_of_is_refused(
    demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else each process would do all of it, into the same files."""
    for launcher, mark, number in (
        ("torchrun", "TORCHELASTIC_RUN_ID", "WORLD_SIZE"),
        ("srun", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(mark, "1")
            patch.setenv(number, "4")
            assert cli.main(words(demo, tmp_path / "out")) == cli.USAGE_ERROR
        told = capsys.readouterr().err
        assert f"`ranks` must be the 4 processes that {launcher} has started, got 1; say how many with" in told
    assert not (tmp_path / "out").exists()


MEMORY = """
import sys
from pathlib import Path
import lcg
from lcg.generation import generate_many
from lcg.settings import Sampling

prior, classifier, out = sys.argv[1:]
pipeline = lcg.load(prior, classifier, sampling=Sampling(steps=2))
for num in (256, 512, 4608):
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    generate_many(pipeline, f"{out}/{num}", num=num, chunk=64, images=True)
    print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells of peaks")
def test_memory_does_not_grow_with_the_number_of_samples(demo, tmp_path: Path) -> None:
    """The 4096 further images alone are 50 MB."""
    command = [sys.executable, "-c", MEMORY, demo.prior, demo.classifier, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=ALONE, timeout=300)
    assert done.returncode == 0, done.stderr
    _, few, many = (int(line) for line in done.stdout.split())
    assert many - few < 15_000, f"{few} kB, then {many} kB"
