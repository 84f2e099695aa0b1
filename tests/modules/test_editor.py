"""`lcg predict` of the guided editor, end to end: the same edits however the work is shared, and every refusal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from safetensors.torch import load_file, save_file

from lcg import cli
from lcg.checkpoint import load_networks
from lcg.data.datamodule import LatentDataModule
from lcg.editing import edit_sequence
from lcg.guidance import parse_edit
from lcg.modules.editor import EditorModule
from lcg.modules.writer import load_edited
from lcg.settings import Editing

CONFIG = Path(__file__).parents[2] / "configs" / "editor" / "avatars.yaml"
QUICK = Editing(steps=5, start="noising")


def trainer(**options) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        **{"inference_mode": False, **options},
    )


def module(demo, out: Path, edits=("+beard", "+glasses"), **options) -> EditorModule:
    return EditorModule(
        list(edits), demo.prior, demo.classifier, options.pop("editing", QUICK), out=str(out), **options
    )


def arguments(demo, out: Path, *more: str) -> list[str]:
    options = {
        "model.prior": demo.prior,
        "model.classifier": demo.classifier,
        "model.out": out,
        "model.editing.steps": 5,
        "data.store": demo.store,
        "trainer.accelerator": "cpu",
        "trainer.default_root_dir": out,
        "trainer.enable_progress_bar": "false",
    }
    return ["predict", "--config", str(CONFIG), *(f"--{name}={value}" for name, value in options.items()), *more]


def test_the_command_edits_every_held_out_latent_once(demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lcg"])
    assert cli.main(arguments(demo, tmp_path)) == 0
    edited, data = load_edited(tmp_path), LatentDataModule(demo.store)
    data.setup()
    assert torch.equal(edited["index"], data.store.index(data.val_rows))
    assert torch.equal(edited["z_0"], data.gather(data.val_rows)["z_0"])
    assert edited["edited"].shape == (len(data.val_rows), 2, 64) and edited["edited"].isfinite().all()
    made_by = json.loads((tmp_path / "provenance.json").read_text())
    assert made_by["edits"] == ["+beard", "+glasses"] and made_by["editing"]["steps"] == 5
    assert made_by["store"] == data.store.fingerprint


def test_what_comes_out_depends_on_no_batch_and_is_what_the_editor_gives(demo, tmp_path: Path) -> None:
    for size in (7, 64):
        data = LatentDataModule(demo.store, batch_size=size)
        trainer().predict(module(demo, tmp_path / str(size)), data, return_predictions=False)
    first, second = (load_edited(tmp_path / size) for size in ("7", "64"))
    assert torch.equal(first["index"], second["index"])
    assert (first["edited"] - second["edited"]).abs().max() < 1e-3

    prior, classifier = (loaded.network for loaded in load_networks(demo.prior, demo.classifier))
    z_0, labels = data.gather(data.val_rows)["z_0"], data.gather(data.val_rows)["labels"]
    editor = QUICK.build(prior, classifier, first["index"].tolist())
    edits = [parse_edit(edit, classifier.schema) for edit in ("+beard", "+glasses")]
    expected = torch.stack([result.z_0 for result in edit_sequence(editor, z_0, edits, labels)], dim=1)
    assert (first["edited"] - expected).abs().max() < 1e-3


@pytest.mark.slow
def test_two_processes_give_what_one_gives(demo, tmp_path: Path) -> None:
    for devices in ("1", "2"):
        more = ("--trainer.devices", devices, "--trainer.strategy", "ddp" if devices == "2" else "auto")
        command = [sys.executable, "-m", "lcg", *arguments(demo, tmp_path / devices, *more)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    one, two = (load_edited(tmp_path / devices) for devices in ("1", "2"))
    assert len(list((tmp_path / "2").glob("edited-*"))) == 2
    assert torch.equal(one["index"], two["index"]) and (one["edited"] - two["edited"]).abs().max() < 1e-3


def test_inference_mode_is_refused_with_the_option_that_ends_it(demo, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"set `trainer\.inference_mode: false`"):
        trainer(inference_mode=True).predict(module(demo, tmp_path), LatentDataModule(demo.store))


def test_results_are_replaced_only_when_asked(demo, tmp_path: Path) -> None:
    data = LatentDataModule(demo.store)
    (tmp_path / "edited-00007.safetensors").write_bytes(b"of a run with more processes")
    with pytest.raises(FileExistsError, match=r"edited-00007\.safetensors already; choose another `out`"):
        trainer().predict(module(demo, tmp_path), data)
    assert [file.name for file in tmp_path.iterdir()] == ["edited-00007.safetensors"]
    with pytest.raises(ValueError, match="glasess"):  # what is refused replaces nothing
        trainer().predict(module(demo, tmp_path, ["+glasess"], overwrite=True), data)
    assert [file.name for file in tmp_path.iterdir()] == ["edited-00007.safetensors"]
    trainer().predict(module(demo, tmp_path, overwrite=True), data)
    assert len(load_edited(tmp_path)["index"]) == len(data.val_rows)


def test_what_does_not_fit_is_refused(demo, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`edits` must name at least one edit"):
        EditorModule([])
    with pytest.raises(FileNotFoundError, match=r"no denoiser at .*nothing\.ckpt"):
        trainer().predict(EditorModule(["+hat"], str(tmp_path / "nothing.ckpt")), LatentDataModule(demo.store))
    with pytest.raises(ValueError, match="`start` must be one of"):
        trainer().predict(module(demo, tmp_path, editing=Editing(start="nowhere")), LatentDataModule(demo.store))


def test_another_store_is_refused(demo, tmp_path: Path, tiny_store) -> None:
    with pytest.raises(ValueError, match=r"was fitted on latents of shape \(64,\), the store .* has \(4,\)"):
        trainer().predict(module(demo, tmp_path), LatentDataModule(tiny_store()))
    with pytest.raises(ValueError, match="trained on latents standardised otherwise"):
        trainer().predict(module(demo, tmp_path), LatentDataModule(tiny_store(shape=(64,))))
    other = {"generator": {"weights_sha256": "0123456789abcdef"}}
    with pytest.raises(ValueError, match=r"of a generator with weights .* was encoded by 0123456789ab"):
        trainer().predict(module(demo, tmp_path), LatentDataModule(tiny_store(shape=(64,), provenance=other)))
    same = LatentDataModule(tiny_store(shape=(64,)), statistics_from=demo.store)
    with pytest.raises(ValueError, match="knows other attributes than the store"):
        trainer().predict(module(demo, tmp_path), same)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    def write(rank: int, index: list[int], processes: str = "2") -> None:
        n, path = len(index), tmp_path / f"edited-{rank:05d}.safetensors"
        tensors = {"index": torch.tensor(index), "z_0": torch.zeros(n, 1), "edited": torch.zeros(n, 1, 1)}
        save_file(tensors, path, {"processes": processes})

    with pytest.raises(FileNotFoundError, match="the files of 0 processes, expected 1"):
        load_edited(tmp_path)
    write(0, [4, 0])
    with pytest.raises(FileNotFoundError, match="the files of 1 processes, expected 2"):
        load_edited(tmp_path)
    write(1, [2])
    assert load_edited(tmp_path)["index"].tolist() == [0, 2, 4]
    write(1, [4])
    with pytest.raises(ValueError, match="holds samples twice"):
        load_edited(tmp_path)
    save_file(load_file(tmp_path / "edited-00000.safetensors"), tmp_path / "edited-00001.safetensors")
    with pytest.raises(ValueError, match="was not written by `lcg predict`"):
        load_edited(tmp_path)
    (tmp_path / "edited-00001.safetensors").write_bytes(b"abc")
    with pytest.raises(ValueError, match="is damaged"):
        load_edited(tmp_path)
