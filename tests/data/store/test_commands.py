"""`lcg store ...` as its users type it: words, files and exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lcg import cli
from lcg.data.split import in_validation
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.data.store.commands import info_job, merge_job
from lcg.data.store.describing import describe_store, in_words
from lcg.job_parser import join_lists

TABLE = "smile,hair,age\n" + "".join(f"{i % 2},{('blond', 'red', '')[i % 3]},{i / 4}\n" for i in range(12))
Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`lcg store WORDS` in a folder with `z.npy` and `labels.csv`; gives the exit code."""
    monkeypatch.chdir(tmp_path)
    np.save("z.npy", np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32))
    Path("labels.csv").write_text(TABLE)

    def run(*words: str) -> int:
        try:
            return cli.main(["store", *words])
        except SystemExit as stop:
            return int(stop.code or 0)

    assert run("import", "--latents", "z.npy", "--table", "labels.csv", "--out", "s", "--progress", "false") == 0
    return run


def test_the_whole_way(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "--latents", "z.npy", "--table", "labels.csv", "--out", "s") == 0  # is there already
    assert "12 latents of shape (4,) with smile, hair, age in s" in capsys.readouterr().out
    assert run("split", "s", "--parts", '{"train": 0.7, "judge": 0.3}', "--out", "parts") == 0
    assert run("split", "s", "--by", "hair", "--out", "hair") == 0
    assert run("merge", "parts/train", "parts/judge", "--out", "again") == 0
    assert run("merge", "again", "s", "--out", "twice", "--renumber", "true") == 0
    told = capsys.readouterr().out
    assert "4 latents in hair/hair-unknown" in told and "12 latents of shape (4,) in again" in told
    assert "warning: samples of all stores but the first have new numbers" in told
    assert np.array_equal(LatentStore.open("again").latents(), LatentStore.open("s").latents())
    assert len(LatentStore.open("twice")) == 24
    assert yaml.safe_load(Path("again/config.yaml").read_text())["stores"] == ["parts/train", "parts/judge"]
    for name in ("again", "parts/train", "hair/hair-red"):
        assert run("verify", name) == 0
    assert run("merge", "--config", "again/config.yaml") == 0  # what it leaves makes it again


def test_all_commands_are_listed_and_explained(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("--help") == 0
    listed = capsys.readouterr().out
    for command in ("info", "verify", "merge", "split", "import"):
        assert f"\n  {command} " in listed
        assert run(command, "--help") == 0
        assert f"usage: lcg store {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("info", "none"), "no latent store at none"),
        (("verify", "none"), "no latent store at none"),
        (("merge", "s", "s", "--out", "m"), "both have a sample 0"),
        (("split", "s", "--out", "p", "--parts", '{"a": 1}'), "two or more shares"),
        (("import", "--latents", "none.npy", "--out", "n"), "no file at none.npy"),
        (("import", "--latents", "z.npy", "--table", "none.csv", "--out", "n"), "no table at none.csv"),
    ],
)
def test_mistakes_are_one_message(
    run: Run, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    capsys.readouterr()
    assert run(*words) == 2
    told = capsys.readouterr().err
    assert f"lcg store {words[0]}: " in told and message in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("words", "joined"),
    [
        (["a", "b", "--out", "o"], ['["a", "b"]', "--out", "o"]),
        (["a"], ['["a"]']),
        (['["a", "b"]', "--out", "o"], ['["a", "b"]', "--out", "o"]),
        (["--config", "c.yaml"], ["--config", "c.yaml"]),
        ([], []),
    ],
)
def test_stores_are_plain_words_in_front_of_the_options(words: list[str], joined: list[str]) -> None:
    assert join_lists(merge_job, words, positional=True) == joined
    assert join_lists(info_job, words, positional=True) == words


# --- info ---


def test_what_is_told_is_what_is_there(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run("info", "s", "--json", "true", "--val_fraction", "0.3", "--test_fraction", "0.2") == 0
    told, store = json.loads(capsys.readouterr().out), LatentStore.open("s")
    assert told["finished"] and told["count"] == 12 and told["latent_shape"] == [4] and told["dtype"] == "float32"
    assert told["fingerprint"] == store.fingerprint and told["shards"] == 1
    assert told["bytes"] == sum(p.stat().st_size for p in store.path.iterdir())
    assert told["labels"] == {
        "smile": {"counts": {"0": 6, "1": 6}, "missing": 0},
        "hair": {"counts": {"blond": 4, "red": 4}, "missing": 4},
        "age": {"min": 0.0, "mean": 11 / 8, "max": 11 / 4, "missing": 0},
    }
    assert told["split"]["validation"] == in_validation(store.index(), 0.3).sum()
    assert sum(told["split"][side] for side in ("train", "validation", "test")) == 12
    for name in ("mean", "std"):
        values = getattr(store.statistics, name)
        assert told["statistics"][name] == [values.min().item(), values.max().item()]
    assert told["statistics"]["whitened"] is False
    assert told["schema"] == store.schema.to_dict() and told["provenance"] == store.provenance
    assert run("info", "s") == 0
    words = capsys.readouterr().out
    for said in (
        "12 of shape (4), float32",
        store.fingerprint,
        "blond 50.0%, red 50.0%; 4 missing",
        "0 to 2.75, mean 1.375",
        "made of      imported",
        "standardised element by element",
    ):
        assert said in words
    assert max(map(len, words.splitlines())) <= 120


def test_a_store_that_is_not_finished_is_told_of(tmp_path: Path) -> None:
    from lcg.schema import Attribute, Schema

    schema = Schema((Attribute("x"), Attribute("y", "continuous")))
    writer = LatentStoreWriter(tmp_path / "s", (2,), schema, {"generator": {"class": "g", "weights_sha256": "ab"}})
    writer.append(np.zeros((3, 2)), np.full((3, 2), np.nan), np.arange(3))
    (tmp_path / "s" / ".shard-00002.json").touch()
    told = describe_store(tmp_path / "s")
    assert (told["finished"], told["count"], told["parts"]) == (False, 3, 1) and "labels" not in told
    assert "not finished, and 1 shards wait for the others; run the command that wrote it again" in in_words(told)
    writer.finish()
    words = in_words(describe_store(tmp_path / "s"))
    assert "no label; 3 missing" in words and "generator g ab" in words


def test_a_store_without_attributes_is_told_of(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "--latents", "z.npy", "--out", "bare") == 0
    assert "without attributes in bare" in capsys.readouterr().out
    assert run("info", "bare") == 0
    assert "no attributes: a prior can be trained on it, classifiers cannot" in capsys.readouterr().out


# --- verify ---


def test_every_damaged_shard_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("import", "--latents", "z.npy", "--out", "many", "--shard_size", "2") == 0
    capsys.readouterr()
    assert run("verify", "many") == 0
    shown = capsys.readouterr()
    assert shown.out == "many: 12 latents in 6 shards, sound\n" and "12/12" in shown.err
    for number in (1, 4):
        path = Path(f"many/shard-0000{number}.safetensors")
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
    Path("many/shard-00005.safetensors").unlink()
    assert run("verify", "many", "--progress", "false") == 1
    told = capsys.readouterr().out
    for number in (1, 4, 5):
        assert f"shard-0000{number}.safetensors" in told
    assert "shard-00000" not in told and "damaged: 3 problems" in told


def test_a_manifest_that_cannot_be_read_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s/manifest.json").write_text("{")
    assert run("verify", "s") == 1
    assert "manifest.json" in capsys.readouterr().out


# --- what comes after ---


@pytest.mark.slow
def test_a_prior_is_trained_on_a_store_without_attributes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("z.npy", np.random.default_rng(0).standard_normal((200, 4)).astype(np.float32))
    assert run("import", "--latents", "z.npy", "--out", "bare") == 0
    config = Path(__file__).parents[3] / "configs" / "prior" / "avatars.yaml"
    words = ["fit", "--config", str(config), "--model.width=16", "--model.depth=1", "--data.store=bare"]
    words += ["--data.batch_size=32", "--trainer.max_steps=3", "--trainer.accelerator=cpu"]
    monkeypatch.setattr(sys, "argv", ["lcg", *words])
    assert cli.main(words) == 0
    (checkpoint,) = Path().rglob("prior*.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 3
