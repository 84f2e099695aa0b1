"""`lcg export` of the tiny trained pair, and all that takes a model in the place of checkpoints."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import lcg
from lcg import cli
from lcg.checkpoint import load_network
from lcg.conformance.pair import read_pair
from lcg.data.avatars import AvatarSource
from lcg.data.store import LatentStore
from lcg.generators.base import Generator
from lcg.guidance import parse
from lcg.models.description import Description
from lcg.models.folder import OWN_FILES
from lcg.settings import Editing, Sampling


class Decoder(Generator):
    """Another generator of the same latents."""

    latent_shape, image_shape = (64,), (3, 64, 64)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z.new_zeros(len(z), 3, 64, 64)


def altered(path: str, out: Path, **entries: Any) -> Path:
    """A copy of a checkpoint with other entries of `lcg`."""
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["lcg"].update(entries)
    torch.save(checkpoint, out)
    return out


FAST = ("--sampling.steps", "6", "--device", "cpu")


def export(demo, *more: str) -> int:
    return cli.main(["export", *demo.networks, *more])


@pytest.fixture(scope="module")
def model(demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    assert export(demo, "--out", str(folder), "--license", "apache-2.0") == 0
    return folder


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one's own models."""
    monkeypatch.setenv("LCG_MODELS", str(tmp_path / "own"))
    return tmp_path / "own"


# --- what the job leaves ----------------------------------------------------------------------------------------------


def test_what_is_written_is_described_and_printed(demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(demo, "--out", str(tmp_path / "model")) == 0
    files = {path.name: path.stat().st_size for path in (tmp_path / "model").iterdir()}
    assert set(files) == OWN_FILES
    printed = capsys.readouterr().out
    assert all(f"{size:,}  " in printed for size in files.values())
    assert f'load it with lcg.load("{tmp_path}/model")' in printed
    description, store = Description.read(tmp_path / "model"), LatentStore.open(demo.store)
    assert description.schema == store.schema and description.store == store.fingerprint
    provenance = dict(store.provenance)
    assert description.generator == provenance.pop("generator") and description.provenance == provenance
    assert description.prior.training["steps"] == 60 and description.prior.training["options"]["width"] == 64
    assert description.classifier.training["figures"]["val/loss"] > 0
    assert description.classifier.training["data"] == {"batch_size": 128, "val_fraction": 0.05, "seed": 0}
    assert description.calibration == load_network(demo.classifier, "classifier").calibration
    card = (tmp_path / "model" / "README.md").read_text()
    for said in ("Classifiers: 80 steps", "t0.4-0.6", "| glasses | binary |", "AvatarAutoencoder", store.fingerprint):
        assert said in card


def test_a_model_is_exported_by_name_and_loaded_by_it(demo, own: Path) -> None:
    assert export(demo, "--name", "mine", "--dtype", "float16") == 0
    assert {path.name for path in (own / "mine").iterdir()} == OWN_FILES
    assert lcg.load("mine").generate(n=1).images.shape == (1, 64, 64, 3)
    size = (own / "mine" / "prior.safetensors").stat().st_size
    assert export(demo, "--name", "mine", "--overwrite", "true") == 0
    assert (own / "mine" / "prior.safetensors").stat().st_size > 1.9 * size


def test_of_an_old_checkpoint_the_store_says_where_the_data_came_from(demo, tmp_path: Path) -> None:
    old, older = (
        str(altered(path, tmp_path / f"{i}.ckpt", provenance={}))
        for i, path in enumerate((demo.prior, demo.classifier))
    )
    job = ["export", "--prior", old, "--classifier", older]
    assert cli.main([*job, "--out", str(tmp_path / "bare")]) == 0
    bare = Description.read(tmp_path / "bare")
    assert bare.provenance == {} and bare.generator == {"weights_sha256": load_network(old, "denoiser").generator}
    assert cli.main([*job, "--out", str(tmp_path / "told"), "--store", demo.store]) == 0
    assert Description.read(tmp_path / "told").generator == LatentStore.open(demo.store).provenance["generator"]


def test_a_distilled_prior_is_exported_and_generates(demo, tmp_path: Path) -> None:
    prior = altered(demo.prior, tmp_path / "distilled.ckpt", consistency=True)
    job = ["export", "--prior", str(prior), "--classifier", demo.classifier, "--out", str(tmp_path / "model")]
    assert cli.main(job) == 0
    pipeline = lcg.load(tmp_path / "model", sampling=Sampling("consistency", steps=2))
    assert pipeline.distilled and pipeline.generate(n=1).images.shape == (1, 64, 64, 3)


# --- refusals, before anything is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "give either `out`, a folder, or `name`, by which the model shall be found"),
        (("--out", "a", "--name", "b"), "give either `out`, a folder, or `name`"),
        (("--name", "a/b"), "`name` must be letters, digits"),
        (("--out", "new", "--license", "all mine"), "`license` must be an identifier such as apache-2.0"),
        (("--out", "new", "--store", "STORE"), "was fitted on another store than"),
        (("--out", "new", "--prior", "missing.ckpt"), "no denoiser at missing.ckpt"),
        (("--out", "file"), "`out` must be a folder, got the file"),
        (("--out", "full"), "holds results already; choose another --out, or replace them with --overwrite true"),
        (
            ("--out", "full", "--overwrite", "true"),
            "full holds mine.txt, which is no part of an exported model; move it",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused(
    demo, tiny_store, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    words = [tiny_store() if word == "STORE" else word for word in more]
    before = sorted(tmp_path.rglob("*"))
    assert export(demo, *words) == 2
    assert said in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before


# --- loading ----------------------------------------------------------------------------------------------------------


def test_samples_and_edits_are_those_of_the_checkpoints(demo, model: Path) -> None:
    fast = {"sampling": Sampling(steps=6), "editing": Editing(steps=6)}
    trained, given = lcg.load(demo.prior, demo.classifier, **fast), lcg.load(model, **fast)
    for formula in (None, "glasses & ~beard", "hat | smile"):
        assert torch.equal(given.generate(formula, n=3).z_0, trained.generate(formula, n=3).z_0)
    images = AvatarSource("uniform", 2, "export").chunk(0, 2)[0]
    for one, other in zip(
        given.edit(images, "+glasses", "-hat"), trained.edit(images, "+glasses", "-hat"), strict=True
    ):
        assert np.array_equal(one, other)
    hat = parse("hat", given.schema)
    assert given.support(hat) == trained.support(hat)


def test_a_model_goes_with_checkpoints_of_the_same_store(demo, model: Path) -> None:
    z_0 = lcg.load(demo.prior, demo.classifier, sampling=Sampling(steps=6)).generate("hat", n=1).z_0
    for networks in ((model, demo.classifier), (demo.prior, str(model)), (model, model)):
        assert torch.equal(lcg.load(*networks, sampling=Sampling(steps=6)).generate("hat", n=1).z_0, z_0)


def test_an_unknown_model_is_answered_with_how_to_make_one() -> None:
    with pytest.raises(FileNotFoundError, match=r"no model 'mine'; .* have: avatars; make one with `lcg export --name"):
        lcg.load("mine")
    with pytest.raises(FileNotFoundError, match=r"no denoiser at missing\.ckpt; make one with `lcg fit"):
        lcg.load("missing.ckpt")


def test_another_generator_is_refused_with_the_name_of_the_right_one(demo, model: Path, tmp_path: Path) -> None:
    own = "generator of class 'lcg.generators.autoencoder.AvatarAutoencoder'"
    with pytest.raises(ValueError, match=f"encoded by a generator with weights .*, this one has .*; use that {own}"):
        lcg.load(model, generator=Decoder())
    narrow = Decoder()
    narrow.latent_shape = (3,)
    with pytest.raises(ValueError, match=rf"latents of shape \(64,\), the generator has \(3,\); use the {own} that"):
        lcg.load(model, generator=narrow)


# --- commands ---------------------------------------------------------------------------------------------------------


def test_generate_takes_a_model(demo, model: Path, own: Path, tmp_path: Path) -> None:
    shutil.copytree(model, own / "mine")
    words = ("--formula", "hat", "--num", "2", *FAST)
    for out, networks in (
        ("trained", demo.networks),
        ("named", ("--model", "mine")),
        ("folder", ("--model", str(model))),
        ("both", ("--prior", str(model), "--classifier", str(model))),
    ):
        assert cli.main(["generate", *networks, *words, "--out", str(tmp_path / out)]) == 0
    latents = [
        load_file(tmp_path / out / "latents.safetensors")["z_0"] for out in ("trained", "named", "folder", "both")
    ]
    assert all(torch.equal(z_0, latents[0]) for z_0 in latents)


def test_edit_takes_a_model(model: Path, tmp_path: Path) -> None:
    Image.fromarray(AvatarSource("uniform", 1, "export").chunk(0, 1)[0][0]).save(tmp_path / "a.png")
    words = ["--source", str(tmp_path / "a.png"), "--edits", "+glasses", "--editing.steps", "6", "--device", "cpu"]
    assert cli.main(["edit", "--model", str(model), *words, "--out", str(tmp_path / "edit")]) == 0


def test_a_model_is_a_pair_to_verify(demo, model: Path) -> None:
    given, trained = (
        read_pair(paths, demo.store, 0.05, 4, 0) for paths in ([str(model)], [demo.prior, demo.classifier])
    )
    assert given.data is not None and trained.data is not None and torch.equal(given.data.z_0, trained.data.z_0)
    with pytest.raises(ValueError, match="`checkpoint` must name two files"):
        read_pair([demo.prior], None, 0.05, 4, 0)


@pytest.mark.slow
def test_verify_takes_a_model(demo, model: Path, tmp_path: Path) -> None:
    words = ["verify", "--quick", "true", "--store", demo.store, "--model", str(model), "--out", str(tmp_path / "out")]
    assert cli.main(words) in (0, 1)  # it is hardly trained
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["checkpoint"] == [str(model)]


def test_a_model_beside_checkpoints_is_refused(demo, model: Path, tmp_path: Path, capsys) -> None:
    out = ("--model", str(model), "--out", str(tmp_path / "out"))
    assert cli.main(["generate", *demo.networks, *out]) == 2
    assert "give --model, or --prior and --classifier" in capsys.readouterr().err
    assert cli.main(["edit", *demo.networks, *out, "--source", "a.png", "--edits", "+hat"]) == 2
    assert "give --model, or --prior and --classifier" in capsys.readouterr().err
    assert cli.main(["verify", *out, "--checkpoint", demo.prior, demo.classifier]) == 2
    assert "give --model or --checkpoint, not both" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
