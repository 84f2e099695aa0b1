"""A walk through mistakes that users make: each is answered by one message that says what to do, before any work.

A case is a user's story, the command, and what its message must contain. Beside that, every case is held to the same:
exit code 2, one message and nothing else on stderr, no traceback, and a working folder with not a byte changed.
"""

import fcntl
import json
import os
import pickle
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import lcg
from lcg import cli
from lcg.commands import read_image
from lcg.data.avatars import AvatarSource
from lcg.data.store import LatentStoreWriter
from lcg.models.names import PACKAGED
from lcg.schema import Attribute, Schema

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
LONGEST = 900
"""Characters of a message; the attributes of the avatars take 200 of them."""

GENERATE = "generate --model avatars --num 2 --out out"
EDIT = "edit --model avatars --source imgs/0000.png --out out --edits"
ENCODE = "encode --generator lcg.generators.autoencoder.AvatarAutoencoder --out out --progress false"
FOLDER = f"{ENCODE} --source lcg.data.images.ImageFolder --source.root imgs --source.table"
FIT = f"fit --config {CONFIGS}/prior/avatars.yaml --data.store store --out run --trainer.max_steps 2"
PRIOR = "generate --out out --prior"
Setup = Callable[[Path], object]


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images, a table of them, their latents, and a store."""
    folder = tmp_path_factory.mktemp("scratch")
    source = AvatarSource(count=6)
    images, labels = source.chunk(0, 6)
    (folder / "imgs").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "imgs" / f"{number:04d}.png")
    (folder / "table.csv").write_text("file,hat\n" + "".join(f"{i:04d}.png,{i % 2}\n" for i in range(6)))
    z = torch.randn(6, 64, generator=torch.Generator().manual_seed(0))
    np.save(folder / "z.npy", z.numpy())
    write_store(folder / "store", z, source.schema, torch.from_numpy(labels))
    return folder


def write_store(folder: Path, z: torch.Tensor, schema: Schema, labels: torch.Tensor, finish: bool = True) -> None:
    writer = LatentStoreWriter(folder, tuple(z.shape[1:]), schema, {})
    writer.append(z, labels, torch.arange(len(z)))
    if finish:
        writer.finish()


@pytest.fixture
def place(scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of one's own with what `scratch` has."""
    folder = tmp_path / "work"
    shutil.copytree(scratch, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LCG_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(sys, "argv", ["lcg"])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def message_of(words: str | list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that is refused: one message, and nothing else."""
    assert cli.main(shlex.split(words) if isinstance(words, str) else words) == cli.USAGE_ERROR
    shown = capsys.readouterr().err
    _, begun, rest = shown.rpartition("lcg ") if shown.startswith("Seed set") else ("", "lcg", shown[3:])
    message = begun + rest
    assert shown.startswith(("lcg", "Seed set")) and "Traceback" not in shown and "usage:" not in shown
    assert len(message) <= LONGEST and message.count("\n") <= 3
    return message


@dataclass(frozen=True)
class Mistake:
    """What a user does, and what the answer must contain."""

    story: str
    command: str
    told: tuple[str, ...]
    setup: Setup | None = None


def case(story: str, command: str, *told: str, setup: Setup | None = None) -> Any:
    return pytest.param(Mistake(story, command, told, setup), id=story.replace(" ", "-"))


def text(name: str, content: str) -> Setup:
    return lambda folder: (folder / name).write_text(content)


def yaml(content: str) -> Setup:
    return text("y.yaml", content)


def table(content: str) -> Setup:
    return text("t.csv", content)


def image(make: Callable[[], Image.Image], name: str = "0000.png") -> Setup:
    return lambda folder: make().save(folder / "imgs" / name)


def check(mistake: Mistake, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if mistake.setup is not None:
        mistake.setup(place)
    before = contents(place)
    message = message_of(mistake.command, capsys)
    for told in mistake.told:
        assert told in message
    assert contents(place) == before


# --- where things are -------------------------------------------------------------------------------------------------

PATHS = [
    case("generates where nothing was trained", "generate", "no denoiser at runs/demo/prior/prior.ckpt",
         "--model avatars", "needs no training"),
    case("edits where nothing was trained", "edit --source imgs/0000.png --edits +hat", "needs no training"),
    case("names a checkpoint that is not there", f"{PRIOR} nope.ckpt", "no denoiser at nope.ckpt", "lcg fit"),
    case("gives the folder of a checkpoint", f"{PRIOR} run", "this is a folder", "prior.ckpt",
         setup=lambda folder: ((folder / "run").mkdir(), (folder / "run" / "prior.ckpt").touch())),
    case("gives the folder of a fit that was killed", f"{PRIOR} run",
         "this is a folder, in which there is no checkpoint",
         setup=lambda folder: ((folder / "run").mkdir(), (folder / "run" / "run.json").touch())),
    case("misspells a model", "generate --model avatras", "no model 'avatras'; did you mean 'avatars'?"),
    case("takes a folder for a model", "generate --model imgs", "no exported model at imgs", "lcg export"),
    case("gives model and prior", "generate --model avatars --prior a.ckpt", "give --model, or --prior"),
    case("names a store that is not there", "store info nope", "no latent store at nope", "lcg encode"),
    case("gives the parent of a store", "store info .", "no latent store at .", "give the folder of another"),
    case("gives a file in the place of a store", "store info table.csv", "no latent store at table.csv"),
    case("misspells the address of a store", "store info htp://x.org/s", "Protocol not known: htp", "https://..."),
    case("names a config that is not there", "generate --config nope.yaml", "no config at nope.yaml", "--print_config"),
    case("runs a config of lcg elsewhere", "fit --config configs/prior/avatars.yaml", "its repository: run lcg there"),
    case("gives a folder as config", "generate --config imgs", "must be a YAML file, got the folder imgs"),
    case("names a table that is not there", f"{FOLDER} tabel.csv", "no table at tabel.csv"),
    case("names images that are not there", f"{FOLDER} table.csv --source.root nope", "must be a folder of images"),
    case("edits an image that is not there", f"{EDIT} +hat --source nope.png", "no image at nope.png"),
    case("edits a folder of images", f"{EDIT} +hat --source imgs", "got the folder imgs; give imgs/*"),
    case("quotes a pattern of files", f"{EDIT} +hat --source 'imgs/*.png'", "without quotes, the shell"),
    case("writes results into a file", f"{GENERATE} --out table.csv", "must be a folder, got the file table.csv"),
    case("writes results over others", f"{GENERATE} --out store", "choose another --out", "--overwrite true"),
    case("writes where nobody may", f"{GENERATE} --out /proc/lcg", "/proc/lcg: "),
    case("reports on no benchmark", "report nope", "nope is not a directory; `lcg bench --out nope` makes it"),
    case("reports on a benchmark without results", "report imgs", "imgs/results.csv does not exist; run `lcg bench`"),
    case("replays a session that is not there", "edit --model avatars --session s.json", "no session at s.json"),
    case("begins an adapter where there is a folder", "new imgs", "imgs exists already and is left as it is"),
    case("names a sweep that is not there", "sweep s.yaml", "no sweep at s.yaml"),
    case("reports on half a benchmark", "report b", "missing: metric, value",
         setup=lambda folder: ((folder / "b").mkdir(), (folder / "b" / "results.csv").write_text("method,task\n"))),
]  # fmt: skip

# --- shapes and data --------------------------------------------------------------------------------------------------


def other_latents(folder: Path) -> None:
    write_store(folder / "eight", torch.randn(6, 8), Schema((Attribute("hat"),)), torch.zeros(6, 1))


def bad_latents(folder: Path) -> None:
    z = np.load(folder / "z.npy")
    z[3, 2] = np.nan
    np.save(folder / "z.npy", z)


def objects(folder: Path) -> None:
    np.save(folder / "z.npy", np.array([{}, 1], dtype=object), allow_pickle=True)


IMPORT = "store import --out out --progress false --latents"
DATA = [
    case("edits latents of another dimension", f"{EDIT} +hat --source eight", "latents of shape (8,), the prior (64,)",
         setup=other_latents),
    case("edits an image of another size", f"{EDIT} +hat", "must be 64x64 pixels", "got 80x60; crop and resize it",
         setup=image(lambda: Image.new("RGB", (80, 60)))),
    case("edits a text called png", f"{EDIT} +hat", "imgs/0000.png is not an image that can be read",
         setup=text("imgs/0000.png", "no image")),
    case("edits an image of 32 bits", f"{EDIT} +hat", "32 bits", "save it with 8 or 16 bits",
         setup=lambda folder: Image.new("F", (64, 64)).save(folder / "imgs" / "0000.png", "TIFF")),
    case("encodes images of another size", f"{FOLDER} table.csv", "the generator takes (3, 64, 64)", "`reading.size`",
         setup=image(lambda: Image.new("RGB", (80, 60)))),
    case("encodes a text called png", f"{FOLDER} table.csv", "cannot read 1 of 6 images", "0001.png", "broken: skip",
         setup=text("imgs/0001.png", "no image")),
    case("encodes an empty folder", f"{ENCODE} --source lcg.data.imagefolder.HuggingFaceFolder --source.root empty",
         "neither metadata", "column `file_name`", setup=lambda folder: (folder / "empty").mkdir()),
    case("has labels of another length", f"{IMPORT} z.npy --table t.csv", "6", "2",
         setup=table("hat,hair\n1,red\n0,blond\n")),
    case("imports a table as latents", f"{IMPORT} table.csv", "must end in .npy, .npz, .safetensors"),
    case("imports no latents", f"{IMPORT} nope.npy", "no file at nope.npy"),
    case("imports pickled objects", f"{IMPORT} z.npy", "z.npy holds pickled objects", setup=objects),
    case("lacks the column of files", f"{FOLDER} table.csv --source.column path", "one of them `path`; got ['file', "),
    case("separates cells by semicolons", f"{FOLDER} t.csv", "separate cells by commas, not by ';'",
         setup=table("file;hat\n0000.png;1\n")),
    case("gives a spreadsheet", f"{FOLDER} t.xlsx", "save the spreadsheet as CSV", setup=text("t.xlsx", "PK")),
    case("has a table in Latin-1", f"{FOLDER} t.csv", "t.csv, line 2 cannot be read", "save the table as UTF-8",
         setup=lambda folder: (folder / "t.csv").write_bytes("file,x\n0000.png,größe\n".encode("latin-1"))),
    case("names an image twice", f"{FOLDER} t.csv", "t.csv, line 3: '0000.png' is on line 2 already",
         setup=table("file,hat\n0000.png,1\n0000.png,0\n")),
    case("names an image that is missing", f"{FOLDER} t.csv", "line 2: no image at imgs/imgs/0000.png",
         "names are relative to imgs", setup=table("file,hat\nimgs/0000.png,1\n0001.png,0\n")),
    case("leaves a cell out", f"{FOLDER} t.csv", "t.csv, line 3: expected 2 cells, got 1",
         setup=table("file,hat\n0000.png,1\n0001.png\n")),
    case("has a column with one text", f"{FOLDER} t.csv", "column 'hair' has one text only, ['red']",
         setup=table("file,hair\n0000.png,red\n0001.png,red\n")),
    case("has a table without rows", f"{FOLDER} t.csv", "t.csv has no rows; add one per image",
         setup=table("file,hat\n")),
    case("has a column with a space", f"{FOLDER} t.csv", "'sun glasses'; rename the column",
         setup=table("file,sun glasses\n0000.png,1\n0001.png,0\n")),
    case("merges stores of other latents", "store merge store eight --out out", "of shape (64,), eight of (8,)",
         setup=other_latents),
    case("edits a row beyond the store", f"{EDIT} +hat --source store --rows 99", "0..5, got 99"),
]  # fmt: skip

# --- names and YAML ---------------------------------------------------------------------------------------------------

NAMES = [
    case("misspells a command", "genrate", "lcg: unknown command 'genrate'; did you mean 'generate'"),
    case("takes the command of another program", "train", "unknown command 'train'; it is `lcg fit`"),
    case("misspells a command of two words", "store inof", "unknown command 'inof'; did you mean 'info'?"),
    case("misspells an option", f"{GENERATE} --formla hat", "unknown option --formla; did you mean --formula?"),
    case("leaves the group of an option out", f"{GENERATE} --steps 4",
         "unknown option --steps; did you mean --sampling.steps?"),
    case("writes a hyphen", f"{GENERATE} --guidance.max-step 1", "did you mean --guidance.max_step?"),
    case("forgets a value", "generate --formula", "`--formula` needs a value"),
    case("takes an option for a switch", f"{GENERATE} --overwrite", "`--overwrite` needs a value"),
    case("gives a number in words", f"{GENERATE} --num four", "`--num`: expected a whole number, got four"),
    case("gives half a sample", f"{GENERATE} --num 4.5", "`--num`: expected a whole number, got 4.5"),
    case("misspells a sampler", f"{GENERATE} --sampling.sampler eulr", "expected one of ddpm, ddim, heun", "got eulr"),
    case("misspells a class", f"{FOLDER} table.csv --source lcg.data.images.ImageFodler",
         "did you mean 'ImageFolder'?"),
    case("misspells a module", f"{ENCODE} --source lcg.data.imges.ImageFolder", "has no attribute 'imges'"),
    case("has its own module elsewhere", f"{GENERATE} --generator my_gen.Mine", "No module named 'my_gen'",
         "working folder"),
    case("gives a class without its path", f"{GENERATE} --generator Avatars", "write its whole path"),
    case("gives a class of another kind", f"{GENERATE} --generator lcg.data.images.ImageFolder",
         "expected a Generator"),
    case("misspells an argument of a class", f"{FOLDER} table.csv --source.rot x",
         "unknown option --source.rot; did you mean --source.root"),
    case("leaves an argument of a class out", f"{GENERATE} --generator lcg.generators.dcgan.DCGAN",
         "not given: --generator.weights"),
    case("leaves required options out", "encode", "required, and not given: --source, --generator, --out"),
    case("misspells a key in YAML", f"{GENERATE} --config y.yaml", "unknown option --formulla; did you mean --formula?",
         setup=yaml("formulla: hat\n")),
    case("misspells a nested key in YAML", f"{GENERATE} --config y.yaml", "did you mean --sampling.steps",
         setup=yaml("sampling:\n  stpes: 3\n")),
    case("leaves a bracket open in YAML", f"{GENERATE} --config y.yaml", "y.yaml, line 2, column 4", "begins on line 1",
         setup=yaml("formula: [hat\nnum: 3\n")),
    case("indents YAML by a tab", f"{GENERATE} --config y.yaml", "y.yaml, line 2", "got a tab; replace it by spaces",
         setup=yaml("sampling:\n\tsteps: 3\n")),
    case("gives a list for a number", f"{GENERATE} --config y.yaml", "`--num`: expected a whole number, got [3]",
         setup=yaml("num: [3]\n")),
    case("gives a text for a number", f"{GENERATE} --config y.yaml", "`--num`: expected a whole number, got three",
         setup=yaml("num: three\n")),
    case("begins a text in YAML with a sign", f"{GENERATE} --config y.yaml", "y.yaml", "in quotes",
         setup=yaml("formula: !hat\n")),
    case("gives YAML that is a word", f"{GENERATE} --config y.yaml", "an option per line",
         "got 'hat'", setup=yaml("hat\n")),
    case("gives an empty YAML", f"{GENERATE} --config y.yaml", "an option per line", "got nothing", setup=yaml("")),
    case("gives an image as YAML", "generate --config imgs/0000.png", "which is no text in UTF-8"),
    case("gives the YAML of another command", f"generate --config {CONFIGS}/prior/avatars.yaml",
         "`--model`: expected a text"),
]  # fmt: skip

# --- formulas, edits, numbers -----------------------------------------------------------------------------------------


def formula(story: str, written: str, *told: str) -> Any:
    return case(story, shlex.join([*shlex.split(GENERATE), f"--formula={written}"]), *told)


def edit(story: str, written: str, *told: str) -> Any:
    return case(story, f"{EDIT} {shlex.quote(written)}", *told)


FORMULAS = [
    formula("writes a formula in words", "glasses and not beard", "got 'and'; write `&`"),
    formula("negates as in C", "!beard", "got '!'; write `~`"),
    formula("conjoins as in C", "glasses && hat", "got '&&'; write `&`"),
    formula("compares as in C", "hair_color==red", "got '=='; write `=`"),
    formula("shortens a name", "hair=red", "unknown attribute 'hair'", "write hair_color=red"),
    formula("writes a name with a hyphen", "long-hair", "the attribute is spelled long_hair"),
    formula("writes a capital", "Glasses", "did you mean 'glasses'"),
    formula("names an unknown value", "hair_color=green", "the attribute has: black, brown, blond, red, gray"),
    formula("leaves the attribute of a value out", "hair_color=red | blond",
            "'blond' is a value: write hair_color=blond"),
    formula("gives a binary attribute a value", "glasses=1", "'glasses' is binary: write glasses or ~glasses"),
    formula("leaves a parenthesis open", "(glasses & smile", "`(` at column 1, got the end"),
    formula("closes a parenthesis twice", "glasses & smile)", "or the end, got ')'"),
    formula("contradicts itself", "glasses & ~glasses", "which contradicts itself"),
    formula("says nothing", "glasses | ~glasses", "always holds", "sample without a formula"),
    formula("gives no formula", "", "the formula is empty; leave it out"),
    formula("separates by commas", "glasses, smile", "got ','; write `&`"),
    formula("signs a formula as an edit", "+glasses", "cannot read '+'; leave it out, signs are for edits"),
    formula("negates by a minus", "-glasses", "cannot read '-'; write `~` for not"),
    formula("pastes quotes of a document", "\u201cglasses\u201d", 'quote values by ", and names not at all'),
    formula("quotes a name", '"glasses"', "names stand without quotes"),
    formula("pastes a dash of a document", "\u2013beard", "cannot read '\u2013'; write `~` for not"),
    formula("pastes signs of logic", "glasses \u2227 \u00acbeard", "cannot read '\u2227'; write `&`"),
    formula("pastes signs of full width", "glasses \uff06 hat", "write `&`"),
    formula("pastes what is not seen", "glasses\u200b & hat", "it is not seen: type the formula"),
    formula("weighs in front", "2*glasses", "a weight, such as glasses^2.0"),
    formula("weighs negatively", "glasses^-1", "a weight must be >= 0", "negate it with `~`"),
    case("loses the quotes of a formula", f"{GENERATE} --formula glasses smile", "'smile' belongs to no option",
         "in quotes"),
    case("leaves the option of a formula out", f"{GENERATE} glasses", "'glasses' belongs to no option"),
    case("begins a value with a hyphen", f"{GENERATE} --formula -glasses", "is written --formula=VALUE"),
    edit("edits what is unknown", "+glases", "unknown attribute 'glases'; did you mean 'glasses'"),
    edit("edits by a value", "+red", "'red' is a value: write hair_color=red"),
    edit("edits a category without a value", "+hair_color", "expected hair_color=VALUE"),
    edit("gives two edits in one", "+glasses -hat", "give each by itself, such as --edits +glasses -hat"),
    edit("pastes a minus of a document", "\u2212glasses", "cannot read '\u2212'; write `-`"),
    edit("edits by a formula", "glasses & hat", "the end of the edit, which is one literal"),
    case("edits nothing", "edit --model avatars --source imgs/0000.png", "must each name at least one"),
    case("puts edits in front", "edit imgs/0000.png +hat", "'imgs/0000.png' belongs to no option"),
]  # fmt: skip

NUMBERS = [
    case("wants no samples", f"{GENERATE} --num 0", "`num` must be at least 1, got 0"),
    case("gives a negative seed", f"{GENERATE} --seed=-1", "`seed` must be at least 0"),
    case("draws in chunks of nothing", f"{GENERATE} --chunk 0", "`chunk` must be at least 1, got 0"),
    case("samples in no steps", f"{GENERATE} --sampling.steps 0", "`steps`", "got 0"),
    case("guides by nan", f"{GENERATE} --guidance.single nan", "`--guidance.single`: expected a number, got nan"),
    case("guides by infinity", f"{GENERATE} --config y.yaml", "`single` must be >= 0 and finite, got inf",
         setup=yaml("guidance: {single: .inf}\n")),
    case("guides by less than nothing", f"{GENERATE} --guidance.several=-1", "`several` must be >= 0",
         "negate it with ~"),
    case("edits five times as much", f"{EDIT} +hat --strength 5", "`strength` must be in [0, 1]", "got 5.0"),
    case("begins after the end", f"{GENERATE} --sampling.t_start 2", "0 < t_end < t_start <= 1, got t_start=2.0"),
    case("serves at no port", "app --port 70000", "`port` must be 0 (any free one) to 65535, got 70000"),
]  # fmt: skip


# --- versions, damage, half-written runs ------------------------------------------------------------------------------


def checkpoint(content: object) -> Setup:
    return lambda folder: torch.save(content, folder / "p.ckpt")


def model(change: Callable[[dict[str, Any]], object] = lambda _: None, lost: str = "") -> Setup:
    """A copy of the shipped model in which something is wrong."""

    def make(folder: Path) -> None:
        shutil.copytree(PACKAGED / "avatars", folder / "m")
        told = json.loads((folder / "m" / "model.json").read_text())
        change(told)
        (folder / "m" / "model.json").write_text(json.dumps(told))
        if lost:
            (folder / "m" / lost).unlink()

    return make


def newer_store(folder: Path) -> None:
    path = folder / "store" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))


def cut_model(folder: Path) -> None:
    model()(folder)
    path = folder / "m" / "prior.safetensors"
    path.write_bytes(path.read_bytes()[:10_000])


def half_a_store(folder: Path) -> None:
    shutil.rmtree(folder / "store")
    write_store(folder / "store", torch.randn(6, 64), Schema((Attribute("hat"),)), torch.zeros(6, 1), finish=False)


NEWER = {"lcg": {"version": "99.0", "kind": "denoiser", "config": {"latent_shape": [64], "flux": 1}}, "state_dict": {}}
FOREIGN = {"state_dict": {"layer.weight": torch.zeros(2)}, "pytorch-lightning_version": "2.6.6", "epoch": 3}
VERSIONS = [
    case("has a checkpoint of a newer lcg", f"{PRIOR} p.ckpt", "lcg 99.0 made it, this is", setup=checkpoint(NEWER)),
    case("has a checkpoint of another program", f"{PRIOR} p.ckpt",
         "another program made it", setup=checkpoint(FOREIGN)),
    case("has a checkpoint of another kind", f"{PRIOR} p.ckpt", "holds a judge, expected a denoiser",
         setup=checkpoint({"lcg": {**NEWER["lcg"], "kind": "judge"}})),
    case("has a pickle", f"{PRIOR} p.ckpt", "it is another kind of file, or holds more than tensors",
         setup=lambda folder: (folder / "p.ckpt").write_bytes(pickle.dumps(folder))),
    case("gives a table as checkpoint", f"{PRIOR} table.csv", "it is another kind of file"),
    case("has an empty checkpoint", f"{PRIOR} p.ckpt", "it is cut off or damaged", "fit it again",
         setup=lambda folder: (folder / "p.ckpt").touch()),
    case("has a checkpoint that was cut off", f"{PRIOR} p.ckpt", "it is cut off or damaged",
         setup=lambda folder: (torch.save({"z": torch.zeros(9999)}, folder / "p.ckpt"),
                               os.truncate(folder / "p.ckpt", 20_000))),
    case("gives one file of a model", f"{PRIOR} m/prior.safetensors", "the folder m", setup=model()),
    case("has a model of a newer lcg", f"{GENERATE} --model ./m", "`version` is 99, this lcg reads up to",
         "upgrade lcg",
         setup=model(lambda told: told.update(version=99))),
    case("has copied half a model", f"{GENERATE} --model ./m", "lacks m/prior.safetensors; copy the whole folder",
         setup=model(lost="prior.safetensors")),
    case("has a model that was cut off", f"{GENERATE} --model ./m", "m/prior.safetensors is not what", "copy the model",
         setup=cut_model),
    case("has a store of a newer lcg", "store info store", "`version` is 99, this lcg reads up to", "upgrade lcg",
         setup=newer_store),
    case("has a store whose encoding was killed", f"{EDIT} +hat --source store", "run the command that wrote it again",
         setup=half_a_store),
    case("has copied half a store", f"{EDIT} +hat --source store", "lacks its shard", "copy the whole folder again",
         setup=lambda folder: next((folder / "store").glob("shard-*")).unlink()),
    case("has a session of a newer lcg", "edit --model avatars --session s.json", "`version` must be 1, got 99",
         setup=text("s.json", json.dumps({"format": "lcg.edit_session", "version": 99}))),
    case("gives a picture as session", "edit --model avatars --session imgs/0000.png", "a session must be JSON"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", [*PATHS, *DATA, *NAMES, *FORMULAS, *NUMBERS, *VERSIONS])
def test_a_mistake_is_answered_by_one_message(
    mistake: Mistake, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(mistake, place, capsys)


def test_images_of_other_depths_and_colours_are_read_for_what_they_show(tmp_path: Path) -> None:
    path, grey = tmp_path / "x.png", np.full((64, 64), 128, np.uint8)
    for made, kind in (
        (Image.fromarray(grey), "PNG"),
        (Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        (Image.fromarray(grey).convert("CMYK"), "TIFF"),
        (Image.fromarray(grey).convert("RGBA"), "PNG"),
        (Image.fromarray(grey).convert("P"), "GIF"),
    ):
        made.save(path, kind)
        assert np.abs(read_image(str(path), (3, 64, 64)).astype(int) - 128).max() <= 1


# --- training ---------------------------------------------------------------------------------------------------------

FITS = [
    case("trains nothing", "fit", "required, and not given: --model", "give a --config"),
    case("misspells a setting of the Trainer", f"{FIT} --trainer.max_epoxs 3", "did you mean --trainer.max_epochs"),
    case("misspells an argument of the model", f"{FIT} --model.widht 3", "did you mean --model.width"),
    case("misspells a callback in YAML", f"{FIT} --config y.yaml", "unknown class 'EarlyStoping'",
         setup=yaml("trainer: {callbacks: [{class_path: EarlyStoping}]}\n")),
    case("misspells an argument of a callback", f"{FIT} --config y.yaml", "did you mean --trainer.callbacks.monitor",
         setup=yaml("trainer: {callbacks: [{class_path: EarlyStopping, init_args: {montor: x}}]}\n")),
    case("trains on a GPU that is not there", f"{FIT} --trainer.accelerator gpu", "no GPU was found",
         "--trainer.accelerator cpu"),
    case("trains on an accelerator that does not exist", f"{FIT} --trainer.accelerator gppu", "Available names are"),
    case("trains in a precision that does not exist", f"{FIT} --trainer.precision bf16-mixd", "bf16-mixed",
         "got bf16-mixd"),
    case("trains in batches of nothing", f"{FIT} --data.batch_size 0", "`batch_size` must be >= 1, got 0"),
    case("logs by what is not installed", f"{FIT} --trainer.logger MLFlowLogger", "mlflow", "pip install"),
    case("resumes from what is not there", f"{FIT} --ckpt_path nope.ckpt", "no checkpoint at nope.ckpt", "last"),
]  # fmt: skip


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("mistake", FITS)
def test_a_mistake_in_training_is_answered_before_it_begins(
    mistake: Mistake, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    check(mistake, place, capsys)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("command", "told"),
    [
        (f"{FIT} --data.store nope", "no latent store at nope"),
        (f"{FIT} --ckpt_path other.ckpt", "the checkpoint is of another model, or of another store, than the config"),
        (f"{FIT} --model.lr=-1", "`lr` must be > 0"),
        (f"fit --config {CONFIGS}/classifier/avatars.yaml --data.store bare --out run", "at least one attribute"),
    ],
    ids=["without-a-store", "resumed-from-another-model", "with-a-negative-rate", "of-classifiers-without-labels"],
)
def test_a_fit_that_cannot_be_says_so_and_touches_nothing_else(
    place: Path, capsys: pytest.CaptureFixture[str], command: str, told: str
) -> None:
    write_store(place / "bare", torch.randn(6, 64), Schema(()), torch.zeros(6, 0))
    content = {"state_dict": {"denoiser.net.input.weight": torch.zeros(2, 2)}, "pytorch-lightning_version": "2.6.6"}
    torch.save({**content, "epoch": 0, "global_step": 0, "loops": {}}, place / "other.ckpt")
    before = contents(place)
    assert cli.main(shlex.split(command)) == cli.USAGE_ERROR
    shown = capsys.readouterr().err
    assert told in shown and "Traceback" not in shown
    assert {name: data for name, data in contents(place).items() if not name.startswith("run/")} == before


@pytest.mark.filterwarnings("ignore")
def test_two_fits_in_one_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "run").mkdir()
    with open(place / "run" / ".run.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another process is fitting in run; wait for it" in message_of(FIT, capsys)


# --- what the machine lacks -------------------------------------------------------------------------------------------

CLIP = "lcg.labels.clip.ClipScorer"
EXTRAS = [
    ("parquet", "pyarrow", f"{FOLDER} t.parquet"),
    ("app", "gradio", "app"),
    ("diffusers", "diffusers", f"{GENERATE} --generator lcg.generators.diffusers_autoencoder.DiffusersAutoencoder "
     "--generator.path ae"),
    ("faces", "gan_face_generate", f"{GENERATE} --generator lcg.generators.faces.FaceDCGAN"),
    ("clip", "open_clip", "label images --root imgs --out o.csv --labeller lcg.labels.ruled.RuledLabeller "
     f"--labeller.scorer {CLIP} --labeller.scorer.model ViT-B-32 --labeller.scorer.weights imgs/0000.png "
     """--labeller.scorer.prompts '{"hat": {"yes": "a hat", "no": "no hat"}}'"""),
]  # fmt: skip


@pytest.mark.parametrize(("extra", "package", "command"), EXTRAS, ids=[extra for extra, _, _ in EXTRAS])
def test_an_extra_that_is_not_installed_is_named(
    place: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    extra: str,
    package: str,
    command: str,
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)  # what Python keeps of a package that is not there
    (place / "t.parquet").write_bytes(b"PAR1")
    (place / "ae").mkdir()
    (place / "ae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    save_file({"weight": torch.zeros(1)}, place / "ae" / "diffusion_pytorch_model.safetensors")
    assert f"pip install 'lcg[{extra}]'" in message_of(command, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("--device cuda", "no CUDA device was found; use --device cpu"),
        ("--device cuda:3", "no CUDA device was found"),
        ("--device gpu", "must be auto, cpu, cuda or cuda:N, got 'gpu'"),
        ("--ranks.accelerator gpu", "use --ranks.accelerator cpu"),
    ],
)
def test_a_device_that_is_not_there(place: Path, capsys: pytest.CaptureFixture[str], device: str, told: str) -> None:
    assert told in message_of(f"{GENERATE} {device}", capsys)
    assert not (place / "out").exists()


@pytest.fixture
def little_room() -> Iterator[None]:
    """A disk on which no file can be larger than 2000 bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize(
    "command", [GENERATE, f"{GENERATE} --images false", f"{EDIT} +hat", f"{IMPORT} z.npy"], ids=lambda c: c.split()[0]
)
def test_a_full_disk(place: Path, capsys: pytest.CaptureFixture[str], little_room: None, command: str) -> None:
    before = contents(place)
    assert cli.main(shlex.split(command)) == cli.USAGE_ERROR
    shown = capsys.readouterr().err
    assert "File too large; make room, or choose a folder on another disk" in shown and "Traceback" not in shown
    assert {name: data for name, data in contents(place).items() if not name.startswith("out/")} == before


def test_a_port_that_is_taken(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 is taken; --port " in message_of(f"app --port {port} --open false", capsys)


# --- the process ------------------------------------------------------------------------------------------------------


def lcg_in(folder: Path | str, command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell in which `lcg` is ours."""
    program = f"{shlex.quote(sys.executable)} -c 'import sys; from lcg.cli import main; sys.exit(main())'"
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; lcg() {{ PYTHONPATH={ROOT} {program} "$@"; }}; {command}'],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_whoever_reads_the_beginning_only_is_told_nothing(tmp_path: Path) -> None:
    done = lcg_in(tmp_path, "lcg --help | true")
    assert done.stderr == "" and done.returncode in (0, cli.PIPE_CLOSED)
    done = lcg_in(tmp_path, "(sleep 0.5; lcg --help) | true")
    assert done.stderr == "" and done.returncode == cli.PIPE_CLOSED


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    done = lcg_in(tmp_path, "lcg --help > /dev/full")
    assert done.returncode == cli.USAGE_ERROR and done.stderr.startswith("lcg: No space left on device; make room")
    assert lcg_in(tmp_path, "lcg --help >&-").returncode == 0


def test_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    done = lcg_in(tmp_path, "mkdir gone; cd gone; rmdir ../gone; lcg --help")
    assert done.returncode == cli.USAGE_ERROR
    assert done.stderr.splitlines()[-1] == "lcg: the working folder does not exist any more; change into another one"


def test_what_lies_in_the_working_folder_hides_nothing(tmp_path: Path) -> None:
    for name in ("yaml.py", "jinja2.py", "random.py", "lcg/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('hidden')")
    program = "import sys; sys.path.remove(''); from lcg.cli import main; sys.exit(main())"  # as in the script `lcg`
    done = subprocess.run(
        [sys.executable, "-c", program, "new", "Mine", "--config", "nope.yaml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "hidden" not in done.stderr + done.stdout and "no config at nope.yaml" in done.stderr


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_terminal_without_unicode(tmp_path: Path, environment: dict[str, str]) -> None:
    done = lcg_in(tmp_path, "lcg café", **environment)
    assert done.returncode == cli.USAGE_ERROR and done.stderr.startswith("lcg: unknown command 'caf")


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment",
    [{"OMP_NUM_THREADS": "abc"}, {"HOME": "/nonexistent"}, {"LCG_MODELS": "/dev/null"}, {"TMPDIR": "/nonexistent"}],
    ids=lambda environment: next(iter(environment)),
)
def test_an_environment_that_is_odd_does_not_matter(tmp_path: Path, environment: dict[str, str]) -> None:
    done = lcg_in(tmp_path, GENERATE.replace("generate", "lcg generate"), **environment)
    assert done.returncode == 0 and "Traceback" not in done.stderr and (tmp_path / "out" / "sheet.png").is_file()


@pytest.mark.slow
def test_ctrl_c_while_things_are_imported_is_quiet(tmp_path: Path) -> None:
    program = "import sys; from lcg.cli import main; sys.exit(main())"
    words = ["generate", "--model", "avatars", "--num", "100000", "--out", "out"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=60)
    assert process.returncode in (cli.INTERRUPTED, -signal.SIGINT) and "Error" not in shown


# --- Python -----------------------------------------------------------------------------------------------------------

IMAGES = np.zeros((1, 64, 64, 3), np.uint8)
PYTHON = [
    ("misspells load", lambda p: lcg.lod, AttributeError, "has no attribute 'lod'"),
    ("loads a number", lambda p: lcg.load(3), TypeError, "must be the name or the folder of a model, or a checkpoint"),
    ("loads what does not exist", lambda p: lcg.load("avatarz"), FileNotFoundError, "did you mean 'avatars'"),
    ("loads what was not trained", lambda p: lcg.load("nope.ckpt"), FileNotFoundError, r'lcg\.load\("avatars"\)'),
    ("gives images as floats", lambda p: p.edit(IMAGES / 1.0, "+hat"), TypeError,
     "must be uint8 in 0..255, got float64"),
    ("gives channels first", lambda p: p.edit(np.moveaxis(IMAGES, 3, 1), "+hat"), ValueError, "channels come last"),
    ("gives grey images", lambda p: p.edit(IMAGES[0, :, :, 0], "+hat"), ValueError, "64x64 with 3 channels"),
    ("gives small images", lambda p: p.edit(IMAGES[:, :32, :32], "+hat"), ValueError, r"got \(32, 32, 3\); resize"),
    ("gives a tensor", lambda p: p.edit(torch.zeros(1, 3, 64, 64), "+hat"), TypeError, "x_to_pixels"),
    ("gives a path to nothing", lambda p: p.edit("nope.png", "+hat"), FileNotFoundError, "no image at nope.png"),
    ("edits what is unknown", lambda p: p.edit(IMAGES, "+hatt"), ValueError, "did you mean 'hat'"),
    ("edits by too much", lambda p: p.edit(IMAGES, "+hat", strength=5), ValueError, r"must be in \[0, 1\]"),
    ("generates none", lambda p: p.generate("hat", n=0), ValueError, "`n` must be at least 1, got 0"),
    ("gives a number as formula", lambda p: p.generate(3), TypeError, "must be text such as 'glasses & ~beard'"),
    ("decodes latents of another shape", lambda p: p.decode(torch.zeros(1, 8)), ValueError, "for this generator, got"),
    ("decodes nan", lambda p: p.decode(torch.full((1, 64), torch.nan)), ValueError, "must be finite"),
    ("undoes nothing", lambda p: p.session(IMAGES).undo(), ValueError, "there is no change to undo"),
]  # fmt: skip


@pytest.fixture(scope="module")
def pipeline() -> lcg.Pipeline:
    return lcg.load("avatars")


@pytest.mark.parametrize(
    ("does", "error", "told"),
    [pytest.param(*row, id=story.replace(" ", "-")) for story, *row in PYTHON],
)
def test_a_mistake_in_python(
    pipeline: lcg.Pipeline, does: Callable[[Any], object], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        does(pipeline)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_python_does_not_have() -> None:
    with pytest.raises(ValueError, match="no CUDA device was found"):
        lcg.load("avatars", device="cuda")
