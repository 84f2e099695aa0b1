"""`lcg generate` and `lcg edit` on the tiny trained pair: what they leave, and that a refusal touches nothing."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lcg import cli
from lcg.data.avatars import AvatarSource
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.editing import EditSession
from lcg.schema import Attribute, Schema

GENERATE = ("--sampling.steps", "6", "--device", "cpu")
EDIT = ("--editing.steps", "6", "--device", "cpu")


def generate(demo, out: Path, *more: str) -> int:
    return cli.main(["generate", *demo.networks, *GENERATE, "--out", str(out), *more])


def edit(demo, out: Path, *more: str) -> int:
    return cli.main(["edit", *demo.networks, *EDIT, "--out", str(out), *more])


def pixels(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("avatars")
    for i, image in enumerate(AvatarSource("uniform", 3, "commands").chunk(0, 3)[0]):
        Image.fromarray(image).save(folder / f"{i}.png")
    return [str(file) for file in sorted(folder.iterdir())]


# --- what the jobs leave ----------------------------------------------------------------------------------------------


def test_generate_leaves_images_latents_and_what_they_were_made_with(demo, tmp_path: Path) -> None:
    assert generate(demo, tmp_path, "--formula", "glasses & (smile | hat)", "--num", "5", "--seed", "7") == 0
    with (tmp_path / "samples.csv").open() as file:
        assert [(row["file"], row["seed"]) for row in csv.DictReader(file)] == [
            (f"images/{i:04d}.png", str(7 + i)) for i in range(5)
        ]
    assert pixels(tmp_path / "images").shape == (5, 64, 64, 3)
    z_0 = load_file(tmp_path / "latents.safetensors")["z_0"]
    assert z_0.shape == (5, 64) and z_0.isfinite().all()
    assert Image.open(tmp_path / "sheet.png").width > 64 and (tmp_path / "config.yaml").is_file()
    made_by = json.loads((tmp_path / "provenance.json").read_text())
    assert made_by["formula"] == "glasses & (smile | hat)" and made_by["seeds"] == [7, 11]
    assert made_by["sampling"]["steps"] == 6 and made_by["store"] == LatentStore.open(demo.store).fingerprint


@pytest.mark.parametrize("formula", [(), ("--formula", "hat & ~beard")], ids=["prior", "formula"])
def test_a_sample_is_the_same_whatever_else_is_asked_for(demo, tmp_path: Path, formula: tuple[str, ...]) -> None:
    for name, more in {"9": ("--num", "9"), "3": ("--num", "3"), "shifted": ("--num", "2", "--seed", "1")}.items():
        assert generate(demo, tmp_path / name, *formula, *more) == 0
    nine, three, shifted = (load_file(tmp_path / name / "latents.safetensors")["z_0"] for name in ("9", "3", "shifted"))
    assert (nine[:3] - three).abs().max() < 1e-4 and (nine[1:3] - shifted).abs().max() < 1e-4
    assert (nine[1:] - nine[:-1]).abs().max(dim=1).values.min() > 0.1  # and no two are the same
    images = (pixels(tmp_path / name / "images").astype(int) for name in ("9", "3"))
    assert np.abs(next(images)[:3] - next(images)).max() <= 1


def test_a_config_that_was_left_repeats_the_job(demo, tmp_path: Path) -> None:
    assert generate(demo, tmp_path / "a", "--formula", "smile^2.0 & glasses", "--num", "2") == 0
    assert cli.main(["generate", "--config", str(tmp_path / "a/config.yaml"), "--out", str(tmp_path / "b")]) == 0
    first, second = (load_file(tmp_path / name / "latents.safetensors")["z_0"] for name in "ab")
    assert torch.equal(first, second)


def test_overwriting_leaves_no_image_of_the_earlier_run(demo, tmp_path: Path) -> None:
    assert generate(demo, tmp_path, "--num", "4") == 0
    (tmp_path / "images" / "mine.png").touch()
    assert generate(demo, tmp_path, "--num", "2", "--overwrite", "true") == 0
    assert sorted(file.name for file in (tmp_path / "images").iterdir()) == ["0000.png", "0001.png", "mine.png"]


def test_edit_of_images(demo, tmp_path: Path, avatars: list[str]) -> None:
    assert edit(demo, tmp_path, "--source", *avatars, "--edits", "+glasses", "-hat", "clothes_color=red") == 0
    names = sorted(file.name for file in (tmp_path / "images").iterdir())
    assert names == sorted(
        f"{i:04d}_{step}.png" for i in range(3) for step in range(5)
    )  # source, reconstruction, edits
    assert np.array_equal(np.asarray(Image.open(tmp_path / "images/0001_0.png")), np.asarray(Image.open(avatars[1])))
    z_0 = load_file(tmp_path / "latents.safetensors")["z_0"]
    assert z_0.shape == (3, 4, 64) and z_0.isfinite().all()
    made_by = json.loads((tmp_path / "provenance.json").read_text())
    assert made_by["edits"] == ["+glasses", "-hat", "clothes_color=red"] and made_by["source"] == avatars
    assert made_by["strength"] == made_by["editing"]["strength"] and not (tmp_path / "slider.png").exists()


def test_edit_of_samples_of_a_store(demo, tmp_path: Path) -> None:
    assert edit(demo, tmp_path, "--source", demo.store, "--rows", "[5, 2]", "--edits", "+beard") == 0
    store, z_0 = LatentStore.open(demo.store), load_file(tmp_path / "latents.safetensors")["z_0"]
    assert torch.equal(z_0[:, 0], store.statistics.standardise(store.latents([5, 2])))


def latents(folder: Path) -> torch.Tensor:
    return load_file(folder / "latents.safetensors")["z_0"]


def test_strength_goes_before_the_setting(demo, tmp_path: Path) -> None:
    source = ("--source", demo.store, "--rows", "[1, 2]", "--edits", "+hat")
    for name, more in (
        ("none", ("--strength", "0")),
        ("half", ("--strength", "0.5", "--editing.strength", "0.9")),
        ("setting", ("--editing.strength", "0.5")),
    ):
        assert edit(demo, tmp_path / name, *source, *more) == 0
    none, half, setting = (latents(tmp_path / name) for name in ("none", "half", "setting"))
    assert torch.equal(none[:, 1], none[:, 0]) and torch.equal(half, setting) and not torch.equal(half, none)
    made_by = json.loads((tmp_path / "half" / "provenance.json").read_text())
    assert made_by["strength"] == made_by["editing"]["strength"] == 0.5


def test_a_slider_has_a_row_per_source_and_a_column_per_strength(demo, tmp_path: Path) -> None:
    source = ("--source", demo.store, "--rows", "1", "2", "--edits", "+hat", "-glasses")
    assert edit(demo, tmp_path, *source, "--strengths", "0", "0.5", "1") == 0
    wide, narrow = Image.open(tmp_path / "slider.png"), tmp_path / "narrow"
    assert edit(demo, narrow, *source, "--strengths", "[0.5]") == 0
    one = np.asarray(Image.open(narrow / "slider.png")).astype(int)
    assert one.shape[1] == 128 and wide.width == 3 * 128 + 2 * 2 and wide.height == one.shape[0] > 2 * 128
    column = np.asarray(wide).astype(int)[:, 130:258]
    assert np.abs(column - one).max() <= 1  # a column does not depend on the others
    reconstruction = np.asarray(Image.open(tmp_path / "images" / "0001_0.png")).astype(int)
    last = np.asarray(wide).astype(int)[-128:, :128:][::2, ::2]
    assert np.abs(last - reconstruction).max() <= 1  # strength 0 is the source
    assert edit(demo, tmp_path, *source, "--overwrite", "true") == 0
    assert not (tmp_path / "slider.png").exists()  # an old one would be another edit's


@pytest.mark.parametrize("start", ["inversion", "noising"])
def test_a_session_is_replayed_bit_by_bit(demo, tmp_path: Path, avatars: list[str], start: str) -> None:
    settings = ("--editing.start", start, "--strengths", "0.2", "0.7")
    source = ("--source", *avatars[:2], "--edits", "+hat", "-glasses", "-hat", "--strength", "0.7")
    assert edit(demo, tmp_path / "a", *settings, *source) == 0
    saved = tmp_path / "a" / "session.json"
    assert edit(demo, tmp_path / "b", *settings, "--session", str(saved)) == 0
    assert latents(tmp_path / "a").shape == (2, 4, 64) and torch.equal(latents(tmp_path / "a"), latents(tmp_path / "b"))
    assert (tmp_path / "b" / "session.json").read_bytes() == saved.read_bytes()
    for picture in ("slider.png", "images/0001_1.png"):  # there is no image of the source itself: steps count from 0
        there = picture.replace("_1", "_2")
        assert (tmp_path / "b" / picture).read_bytes() == (tmp_path / "a" / there).read_bytes()
    made_by = json.loads((tmp_path / "b" / "provenance.json").read_text())
    assert (made_by["session"], made_by["edits"], made_by["strength"], made_by["inversion"]) == (
        str(saved),
        ["+hat", "-glasses", "-hat"],
        0.7,
        None,
    )


def test_a_session_of_a_store_keeps_its_labels_and_may_be_replayed_at_another_strength(demo, tmp_path: Path) -> None:
    source = ("--source", demo.store, "--rows", "3", "--edits", "+hat")
    assert edit(demo, tmp_path / "a", *source) == 0
    saved = str(tmp_path / "a" / "session.json")
    assert edit(demo, tmp_path / "b", "--session", saved, "--strength", "0.3") == 0
    assert edit(demo, tmp_path / "c", *source, "--strength", "0.3") == 0
    assert torch.equal(latents(tmp_path / "b"), latents(tmp_path / "c"))
    assert edit(demo, tmp_path / "d", "--session", str(tmp_path / "b" / "session.json")) == 0  # which was saved with it
    assert torch.equal(latents(tmp_path / "b"), latents(tmp_path / "d"))
    schema, text = LatentStore.open(demo.store).schema, Path(saved).read_text()
    session = EditSession.from_json(text, schema)
    assert torch.equal(session.labels.nan_to_num(9), LatentStore.open(demo.store).labels([3]).nan_to_num(9))


def test_a_session_of_python_may_have_weights_and_no_strength(demo, tmp_path: Path) -> None:
    store = LatentStore.open(demo.store)
    z_0 = store.statistics.standardise(store.latents([4]))
    session = EditSession(z_0, store.schema).add("+hat", 0.25).add("-beard", 0.0)
    (tmp_path / "session.json").write_text(session.to_json())
    assert edit(demo, tmp_path / "out", "--session", str(tmp_path / "session.json"), "--strength", "0.4") == 0
    made_by = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert made_by["edits"] == ["+hat", "-beard"] and made_by["strength"] == 0.4
    frames = latents(tmp_path / "out")
    assert torch.equal(frames[:, 2], frames[:, 1]) and not torch.equal(frames[:, 1], frames[:, 0])


def test_the_reconstruction_of_images_is_reported(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], avatars: list[str]
) -> None:
    noise = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(noise)
    both = ("--inversion.how", "both", "--inversion.steps", "10", "--inversion.lr", "0.05")
    errors = {}
    for name, source, more in (
        ("encoder", avatars, ()),
        ("both", avatars, both),
        ("noise", (avatars[0], str(noise)), ()),
    ):
        assert edit(demo, tmp_path / name, "--source", *source, "--edits", "+hat", *more) == 0
        shown = capsys.readouterr().out
        inversion = json.loads((tmp_path / name / "provenance.json").read_text())["inversion"]
        errors[name] = inversion["reconstruction_error"]
        mean, worst = np.mean(errors[name]), np.max(errors[name])
        file = source[int(np.argmax(errors[name]))]
        assert f"reconstruction error: {mean:.3f} on average, {worst:.3f} at worst ({file})" in shown
        assert ("warning: the generator does not reproduce" in shown) == (name == "noise") == (worst > 0.05)
    assert (np.array(errors["both"]) < errors["encoder"]).all()
    assert f"does not reproduce {noise} well" in shown and "try --inversion.how both" in shown
    assert inversion["how"] == "auto" and inversion["steps_taken"] == [0, 0] and inversion["converged"] == [False] * 2
    shown, half = (tmp_path / "encoder" / "images", 127.5)  # the numbers are those of the pictures
    source, made = (np.asarray(Image.open(shown / f"0000_{k}.png")).astype(float) for k in (0, 1))
    assert abs(np.sqrt(np.square((made - source) / half / 2).mean()) - errors["encoder"][0]) < 2e-3


@pytest.mark.parametrize("start", ["noising", "noise"])
def test_an_edit_that_draws_noise_can_be_repeated(demo, tmp_path: Path, start: str) -> None:
    for name, rows in (("a", "[1, 2]"), ("b", "[1]")):
        more = ("--source", demo.store, "--rows", rows, "--edits", "+hat", "--editing.start", start)
        assert edit(demo, tmp_path / name, *more) == 0
    first, second = (load_file(tmp_path / name / "latents.safetensors")["z_0"] for name in "ab")
    assert (first[:1] - second).abs().max() < 1e-4


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(code: int, capsys: pytest.CaptureFixture[str], out: Path) -> str:
    assert code == cli.USAGE_ERROR and not out.exists()
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--formula", "glases & hat"), "did you mean 'glasses'"),
        (("--formula", "glasses & & hat"), "         ^"),
        (("--formula", "hair_color=green"), "unknown value of 'hair_color' 'green'"),
        (("--formula", "hat & ~hat"), "contradicts itself"),
        (("--num", "0"), "`num` must be at least 1, got 0"),
        (("--sampling.steps", "1"), "`steps` must be at least 2"),
        (("--prior", "nowhere.ckpt"), "no denoiser at nowhere.ckpt; make one with `lcg fit"),
        (("--classifier", "nowhere.ckpt"), "no classifier at nowhere.ckpt"),
    ],
)
def test_generate_refuses_before_anything_is_touched(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    assert message in refused(generate(demo, out, *more), capsys, out)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "no CUDA device was found" in refused(generate(demo, out, "--device", "cuda"), capsys, out)


def test_prior_and_classifier_in_each_other_s_place_are_refused(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    message = refused(generate(demo, out, "--prior", demo.classifier), capsys, out)
    assert "holds a classifier, expected a denoiser" in message


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (("+glasess",), "did you mean 'glasses'"),
        (("glasses & hat",), "^"),
        (("hair_color=green",), "the attribute has: black, brown, blond, red, gray"),
        (("age=0.7",), "unknown attribute 'age'"),
        ((), "`source` and `edits` must each name at least one"),
    ],
)
def test_edit_refuses_what_it_cannot_read(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], avatars: list[str], edits: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    assert message in refused(edit(demo, out, "--source", avatars[0], "--edits", *edits), capsys, out)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--strength", "1.5"), "`strength` must be in [0, 1]"),
        (("--strengths", "0.5", "-1"), "`strength` must be in [0, 1]"),
        (("--strengths", "[2]"), "`strength` must be in [0, 1]"),
        (("--editing.start", "nowhere"), "start"),
        (("--inversion.how", "guess"), "guess"),
        (("--inversion.steps", "0"), "`steps` must be at least 1, got 0"),
        (("--inversion.how", "both", "--inversion.candidates", "4"), "has no prior of its own, which `candidates`=4"),
    ],
)
def test_edit_refuses_settings_before_anything_is_touched(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], avatars: list[str], more: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    source = ("--source", avatars[0], "--edits", "+hat")
    try:
        code = edit(demo, out, *source, *more)
    except SystemExit as stop:  # raised by the parser
        code = stop.code
    assert message in refused(code, capsys, out)


def test_edit_refuses_a_session_that_it_cannot_replay(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], avatars: list[str]
) -> None:
    out, path = tmp_path / "out", tmp_path / "session.json"
    schema = LatentStore.open(demo.store).schema

    def message(*more: str) -> str:
        return refused(edit(demo, out, "--session", str(path), *more), capsys, out)

    assert "session.json; `lcg edit` leaves one as OUT/session.json" in message()
    path.write_text(EditSession(torch.zeros(1, 64), schema).add("+hat").to_json())
    assert "`source` cannot be given beside `session`, which holds sources and edits" in message("--source", avatars[0])
    assert "`edits` cannot be given beside `session`" in message("--edits", "+hat")
    assert "`source` and `edits` cannot be given" in message("--source", avatars[0], "--edits", "+hat")
    path.write_text(EditSession(torch.zeros(1, 64), Schema((Attribute("hat"),))).add("+hat").to_json())
    assert "session.json: the session was made with other attributes" in message()
    path.write_text(EditSession(torch.zeros(1, 4), schema).add("+hat").to_json())
    assert "session.json: the sources are latents of shape (4,), the prior's have (64,)" in message()
    path.write_text(EditSession(torch.zeros(1, 64), schema, strength=3.0).add("+hat").to_json())
    assert "`strength` must be in [0, 1]" in message()
    path.write_text("{")
    assert "session.json: a session must be JSON" in message()


def test_edit_refuses_what_is_no_fitting_image(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], avatars: list[str]
) -> None:
    out, large, text, cut = (tmp_path / name for name in ("out", "large.png", "text.png", "cut.png"))
    Image.new("RGB", (80, 60)).save(large)
    text.write_text("no image")
    cut.write_bytes(Path(avatars[0]).read_bytes()[:-200])

    def message(*source: str) -> str:
        return refused(edit(demo, out, "--source", *source, "--edits", "+hat"), capsys, out)

    assert "large.png must be 64x64 pixels for this generator, got 80x60" in message(avatars[0], str(large))
    assert "text.png is not an image that can be read" in message(str(text))
    assert "cut.png is not an image that can be read" in message(str(cut))
    assert "no image at" in message(str(tmp_path / "missing.png"))


def test_edit_refuses_what_is_no_fitting_store(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_store
) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()

    def message(store: Path | str, *more: str) -> str:
        return refused(edit(demo, out, "--source", str(store), "--edits", "+hat", *more), capsys, out)

    assert "no latent store at" in message(empty)
    assert "has latents of shape (4,), the prior (64,)" in message(tiny_store())
    assert "has other attributes than the classifier" in message(tiny_store(shape=(64,)))
    assert "`rows` must name samples of the store, 0..599, got 600" in message(demo.store, "--rows", "[0, 600]")
    assert "`rows` must name samples of the store, 0..599, got none" in message(demo.store, "--rows", "[]")


def test_latents_that_are_not_finite_and_those_of_another_generator_are_refused(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = LatentStore.open(demo.store), tmp_path / "out"

    def message(folder: Path, provenance: dict[str, object], bad: bool) -> str:
        writer = LatentStoreWriter(folder, (64,), source.schema, provenance)
        writer.append(source.latents(range(10)), source.labels(range(10)), range(10))
        writer.finish()
        if bad:  # as no writer of ours would leave it
            shard = folder / "shard-00000.safetensors"
            tensors = {name: tensor.clone() for name, tensor in load_file(shard).items()}
            tensors["latents"][3] = torch.nan
            save_file(tensors, shard)
        return refused(edit(demo, out, "--source", str(folder), "--edits", "+hat"), capsys, out)

    assert "latent of row 3 (sample 3) is not finite" in message(tmp_path / "nan", {}, bad=True)
    other = {"generator": {"weights_sha256": "0" * 64}}
    assert "was encoded by another generator" in message(tmp_path / "other", other, bad=False)


def test_an_output_that_is_occupied_or_cannot_be_written_is_refused(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], avatars: list[str]
) -> None:
    occupied, file = tmp_path / "occupied", tmp_path / "file"
    occupied.mkdir()
    (occupied / "precious.txt").write_text("mine")
    file.write_text("mine")
    jobs = {
        generate: (),
        edit: ("--source", avatars[0], "--edits", "+hat"),
    }
    for job, more in jobs.items():
        assert job(demo, occupied, *more) == cli.USAGE_ERROR
        assert "holds results already; choose another --out" in capsys.readouterr().err
        assert job(demo, file, *more) == cli.USAGE_ERROR
        assert "`out` must be a folder, got the file" in capsys.readouterr().err
        assert job(demo, file / "below", *more) == cli.USAGE_ERROR
        assert "Not a directory" in capsys.readouterr().err
    assert [p.name for p in occupied.iterdir()] == ["precious.txt"] and file.read_text() == "mine"


def test_a_folder_without_permission_is_refused(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", denied)  # permissions do not bind the superuser that tests may run as
    assert generate(demo, tmp_path / "out") == cli.USAGE_ERROR
    assert "Permission denied" in capsys.readouterr().err and not list((tmp_path / "out").iterdir())
