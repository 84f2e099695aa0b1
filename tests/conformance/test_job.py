"""`lcg verify` from its arguments to its files and exit code."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from lcg.checkpoint import describe_network
from lcg.conformance import suite
from lcg.conformance.job import threads, verify_job
from lcg.conformance.laboratory import Laboratory, Sizes
from lcg.conformance.outcome import Check
from lcg.conformance.sampling import control_checks
from lcg.conformance.scores import score_checks
from lcg.data.datamodule import LatentDataModule
from lcg.data.store import LatentStoreWriter
from lcg.diffusion import MixtureDenoiser
from lcg.nets.classifier import TimeConditionedClassifier
from lcg.nets.denoiser import LatentDenoiser
from lcg.schema import Attribute, Schema

SMALL = Sizes(samples=600, reference=4000, systems=8, particles=48, latents=8)
FILES = {"verify.csv", "verify.html", "verify.png", "provenance.json"}
SCHEMA = Schema(
    (Attribute("coin"), Attribute("die", "categorical", ("one", "two", "three")), Attribute("age", "continuous"))
)


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "verify.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def provenance(out: Path) -> dict[str, object]:
    return json.loads((out / "provenance.json").read_text())


def some_controls(lab: Laboratory) -> Iterator[Check]:
    return (check for check in control_checks(lab) if check.world == "line")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick suite made smaller still: identities and some controls."""
    monkeypatch.setattr("lcg.conformance.job.QUICK", SMALL)
    monkeypatch.setattr(suite, "GROUPS", (score_checks, some_controls))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No picture, which would take longer than everything else."""
    monkeypatch.setattr("lcg.conformance.job.draw_suite", lambda lab, outcomes, path: Image.new("L", (1, 1)).save(path))


# --- lcg itself ---


@pytest.mark.usefixtures("small")
def test_the_suite_passes_and_leaves_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "verify"
    assert verify_job(out=str(out), quick=True, seed=4) == 0
    assert {file.name for file in out.iterdir()} == FILES
    with Image.open(out / "verify.png") as picture:
        assert picture.size == (1560, 806)
    table = rows(out)
    assert {row["verdict"] for row in table} == {"ok"}
    assert {row["expected"] for row in table if row["group"] == "controls"} == {"wrong"}
    said = provenance(out)
    assert (said["seed"], said["quick"], said["failed"]) == (4, True, [])
    assert said["command"] == f"lcg verify --out {out} --seed 4 --quick true"
    text = capsys.readouterr().out
    assert "scores: guided scores and log-probabilities against closed forms" in text
    assert f"checks came out as they should, in {said['seconds']:.0f} s: {out / 'verify.html'}" in text


@pytest.mark.usefixtures("small", "undrawn")
def test_a_broken_denoiser_ends_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = MixtureDenoiser.__call__
    monkeypatch.setattr(MixtureDenoiser, "__call__", lambda self, z_t, t: 0.9 * exact(self, z_t, t))
    assert verify_job(out=str(tmp_path), quick=True) == 1
    assert any("source, observation" in name for name in provenance(tmp_path)["failed"])
    assert "FAILED" in {row["verdict"] for row in rows(tmp_path)}
    assert "did not come out as they should" in capsys.readouterr().out
    assert 'class="failure"' in (tmp_path / "verify.html").read_text()


@pytest.mark.usefixtures("small", "undrawn")
def test_a_method_that_breaks_down_is_a_failure_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise ValueError("cannot be read")

    monkeypatch.setattr("lcg.conformance.scores.LabelReadout", breaks)
    assert verify_job(out=str(tmp_path), quick=True) == 1
    broken = [row for row in rows(tmp_path) if row["error"]]
    assert {row["method"] for row in broken} == {"label readout"}
    assert {row["error"] for row in broken} == {"ValueError: cannot be read"}
    assert len(rows(tmp_path)) > len(broken)


@pytest.mark.parametrize("count", [1, None])
def test_threads_are_given_back(count: int | None) -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="on the way"), threads(count):
        assert torch.get_num_threads() == (count or before)
        raise RuntimeError("on the way")
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_the_whole_suite_passes_at_its_quick_sizes(tmp_path: Path) -> None:
    assert verify_job(out=str(tmp_path), quick=True) == 0
    groups = {row["group"] for row in rows(tmp_path)}
    assert groups == {"scores", "likelihood", "samplers", "formulas", "correctors", "particles", "controls"}


# --- a trained pair: untrained networks are exact for standard normal latents and labels of chance ---


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of chance, and the networks that know all there is to know about it: nothing."""
    root, rng, n = tmp_path_factory.mktemp("chance"), torch.Generator().manual_seed(0), 4000
    z = torch.randn(n, 3, generator=rng)
    labels = torch.stack(
        [
            torch.randint(2, (n,), generator=rng).float(),
            torch.randint(3, (n,), generator=rng).float(),
            torch.randn(n, generator=rng),
        ],
        dim=1,
    )
    labels[::7, 0] = torch.nan
    writer = LatentStoreWriter(root / "store", (3,), SCHEMA, {})
    writer.append(3 + 2 * z, labels, torch.arange(n))
    writer.finish()
    save(root / "prior.ckpt", "denoiser", LatentDenoiser((3,), width=8, depth=1), root / "store")
    save(
        root / "classifier.ckpt",
        "classifier",
        TimeConditionedClassifier((3,), SCHEMA, width=8, depth=1),
        root / "store",
    )
    return root


def save(path: Path, kind: str, network: torch.nn.Module, store: Path, schedule: str = "cosine") -> None:
    config = network.config if kind == "denoiser" else {**network.config, "schedule": schedule}
    checkpoint = {"state_dict": {f"{kind}.{name}": value for name, value in network.state_dict().items()}}
    describe_network(checkpoint, kind, config, LatentDataModule(store))
    torch.save(checkpoint, path)


def verify(world: Path, out: Path, *, store: bool = True, names: tuple[str, ...] = ("prior", "classifier")) -> int:
    files = [str(world / f"{name}.ckpt") for name in names]
    return verify_job(
        str(out), quick=True, checkpoint=files, store=str(world / "store") if store else None, val_fraction=0.5
    )


@pytest.mark.parametrize("names", [("prior", "classifier"), ("classifier", "prior")])
def test_an_exact_pair_passes_in_either_order(world: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    assert verify(world, tmp_path, names=names) == 0
    assert {file.name for file in tmp_path.iterdir()} == FILES
    table = rows(tmp_path)
    assert {row["group"] for row in table} == {"average", "calibration", "regression", "path", "consistency", "ends"}
    assert {row["task"] for row in table if row["group"] == "average"} == {"coin", "die", "age"}


def test_without_a_store_nothing_is_said_of_data(world: Path, tmp_path: Path) -> None:
    assert verify(world, tmp_path, store=False) == 0
    assert {row["group"] for row in rows(tmp_path)} == {"path", "consistency"}


def broken(world: Path, root: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """A copy of the world with one network's last bias changed."""
    copy = root / "broken"
    shutil.copytree(world, copy)
    checkpoint = torch.load(copy / f"{name}.ckpt", weights_only=True)
    (bias,) = [key for key in checkpoint["state_dict"] if key.endswith("net.output.bias")]
    checkpoint["state_dict"][bias] = change(checkpoint["state_dict"][bias])
    torch.save(checkpoint, copy / f"{name}.ckpt")
    return copy


def test_a_broken_classifier_ends_with_exit_code_1_and_advice(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = broken(world, tmp_path, "classifier", lambda bias: bias + torch.tensor([1.0, 0, 0, 0, 0, 0]))
    assert verify(copy, tmp_path / "out") == 1
    failed = {(row["group"], row["task"]) for row in rows(tmp_path / "out") if row["verdict"] == "FAILED"}
    assert ("average", "coin") in failed and ("average", "die") not in failed
    assert "the classifier is biased at some noise level" in capsys.readouterr().out


def test_a_broken_prior_ends_with_exit_code_1_and_advice(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = broken(world, tmp_path, "prior", lambda bias: bias + 1.0)
    assert verify(copy, tmp_path / "out") == 1
    failed = {row["group"] for row in rows(tmp_path / "out") if row["verdict"] == "FAILED"}
    assert "ends" in failed and "average" not in failed
    assert "fit it longer" in capsys.readouterr().out


# --- what is refused ---


def test_a_file_for_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"`out` must be a folder, got the file .*file; choose another"):
        verify_job(out=str(tmp_path / "file"))


def test_a_negative_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`seed` must be >= 0, got -1"):
        verify_job(out=str(tmp_path), seed=-1)


def test_a_store_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`store` goes with the checkpoints that were fitted on it"):
        verify_job(out=str(tmp_path), store="somewhere")


@pytest.mark.parametrize("names", [("prior",), ("prior", "classifier", "prior")])
def test_another_number_of_checkpoints_is_refused(world: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(
        ValueError, match=f"`checkpoint` must name two files, .* got {len(names)}; such as --checkpoint"
    ):
        verify(world, tmp_path, names=names)


def test_two_of_a_kind_are_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a prior and a classifier, got two of a denoiser; give one of each"):
        verify(world, tmp_path, names=("prior", "prior"))


def test_a_missing_checkpoint_is_refused(world: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no checkpoint at .*nowhere\.ckpt; give the files of a prior and of a"
    ):
        verify(world, tmp_path, names=("prior", "nowhere"))


def test_a_file_that_is_no_checkpoint_is_refused(world: Path, tmp_path: Path) -> None:
    junk = tmp_path / "junk.ckpt"
    junk.write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"junk\.ckpt is not a readable denoiser checkpoint of lcg"):
        verify_job(str(tmp_path / "out"), checkpoint=[str(junk), str(world / "classifier.ckpt")])


def test_another_store_is_refused(world: Path, tmp_path: Path) -> None:
    writer = LatentStoreWriter(tmp_path / "other", (3,), SCHEMA, {})
    writer.append(torch.randn(10, 3), torch.zeros(10, 3), torch.arange(10))
    writer.finish()
    files = [str(world / "prior.ckpt"), str(world / "classifier.ckpt")]
    with pytest.raises(ValueError, match=r"was fitted on another store than .*other; give its own store, or none"):
        verify_job(str(tmp_path / "out"), checkpoint=files, store=str(tmp_path / "other"))


def test_a_split_without_validation_latents_is_refused(world: Path, tmp_path: Path) -> None:
    files = [str(world / "prior.ckpt"), str(world / "classifier.ckpt")]
    with pytest.raises(ValueError, match="must have at least 2 validation latents, got 0 with val_fraction=0"):
        verify_job(str(tmp_path / "out"), checkpoint=files, store=str(world / "store"), val_fraction=0.0)


def test_networks_that_do_not_fit_together_are_refused(world: Path, tmp_path: Path) -> None:
    classifier = TimeConditionedClassifier((3,), SCHEMA, width=8, depth=1)
    save(tmp_path / "other.ckpt", "classifier", classifier, world / "store", schedule="linear")
    with pytest.raises(ValueError, match="the prior's schedule is 'cosine', the classifier's 'linear'"):
        verify_job(str(tmp_path / "out"), checkpoint=[str(world / "prior.ckpt"), str(tmp_path / "other.ckpt")])
