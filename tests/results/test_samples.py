"""Samples and edits as values: sequences, pictures, what the classifier reads, and the folders that commands leave."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import lcg
from lcg.commands import edit_job
from lcg.generation.many import generate_many
from lcg.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return lcg.load("avatars", sampling=lcg.Sampling(steps=8), editing=lcg.Editing(steps=4))


@pytest.fixture(scope="module")
def samples(pipeline: Pipeline) -> lcg.Samples:
    return pipeline.generate("glasses & ~beard", n=4, seed=7)


@pytest.fixture(scope="module")
def edits(pipeline: Pipeline, samples: lcg.Samples) -> lcg.Edits:
    return pipeline.edit(samples.images[:2], "+smile", "-glasses", strength=0.5)


# --- samples ----------------------------------------------------------------------------------------------------------


def test_samples_are_a_sequence_of_images(samples: lcg.Samples) -> None:
    assert len(samples) == 4 and [one.seed for one in samples] == [7, 8, 9, 10]
    assert np.array_equal(samples[-1].image, samples.images[3]) and torch.equal(samples[1].z_0, samples.z_0[1])
    part = samples[1:3]
    assert part.seeds == (8, 9) and np.array_equal(part.images, samples.images[1:3]) and len(part.z_0) == 2
    with pytest.raises(IndexError):
        samples[4]
    assert np.asarray(samples).shape == (4, 64, 64, 3) and np.asarray(samples[0], float).dtype == float
    copied = np.array(samples[0])
    copied[:] = 0
    assert samples.images[0].any()


def test_pictures_of_samples(samples: lcg.Samples) -> None:
    assert np.array_equal(np.asarray(samples.pil(2)), samples.images[2])
    assert np.array_equal(np.asarray(samples[2].pil()), samples.images[2])
    assert samples.sheet(columns=2, scale=1).size == (130, 130)


def test_probabilities_are_the_classifier_s_reading_of_the_formula(pipeline: Pipeline, samples: lcg.Samples) -> None:
    formula = lcg.parse("glasses & ~beard", pipeline.schema)
    assert samples.probabilities is not None and samples.formula == formula
    expected = pipeline.log_probability(formula, samples.z_0).exp()
    assert np.allclose(samples.probabilities, expected.numpy(), atol=1e-6) and (samples.probabilities > 0.5).all()
    assert samples[1].probability == samples.probabilities[1]
    free = pipeline.generate(n=2)
    assert free.probabilities is None and free[0].probability is None and free.plan is None
    assert str(free) == "2 images of 64x64 of the prior, seeds 0 to 1" and repr(free[1]) == "Sample(seed 1)"


def test_samples_say_how_they_were_made_and_how_far_to_trust_them(pipeline: Pipeline, samples: lcg.Samples) -> None:
    assert repr(samples) == (
        "Samples(4 images of 64x64 for glasses & ~beard, seeds 7 to 10; the classifier agrees with 4 of 4)"
    )
    told = str(samples.plan)
    assert told.startswith("within the prior's support (") and "sampled as a conditional, attributes read" in told
    assert told.endswith("weight of the guidance 3, 12 once t < 0.6") and not samples.warnings
    far = pipeline.generate("beard & long_hair & glasses & hat", n=1)
    assert "beyond the prior's support" in str(far.plan) and "extrapolated, attributes read one by one" in str(far.plan)
    assert "samples are extrapolated" in far.warnings[0] and "samples are extrapolated" in far._repr_html_()


def test_saved_samples_are_what_the_command_leaves(pipeline: Pipeline, samples: lcg.Samples, tmp_path: Path) -> None:
    saved, made = samples.save(tmp_path / "saved"), tmp_path / "made"
    generate_many(pipeline, made, "glasses & ~beard", 4, seed=7)
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file())
    for name in names:
        if name != "provenance.json":
            assert (saved / name).read_bytes() == (made / name).read_bytes(), name
    ours, theirs = (json.loads((folder / "provenance.json").read_text()) for folder in (saved, made))
    assert {k: v for k, v in theirs.items() if k not in ("seconds", "found", "ranks")} == ours
    assert len(list(csv.DictReader((saved / "samples.csv").open()))) == 4
    again = generate_many(pipeline, saved, "glasses & ~beard", 4, seed=7)  # the command finds them there
    assert again is not None and again["found"] == 1


def test_nothing_of_others_is_overwritten(samples: lcg.Samples, edits: lcg.Edits, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for result in (samples, edits):
        with pytest.raises(FileExistsError, match="holds something already; choose another folder, or replace"):
            result.save(tmp_path / "mine")
        with pytest.raises(FileExistsError, match="holds something that lcg did not leave, which is not replaced"):
            result.save(tmp_path / "mine", overwrite=True)
        with pytest.raises(NotADirectoryError, match="`folder` must be a folder, got the file"):
            result.save(tmp_path / "file")
        result.save(tmp_path / "own", overwrite=True)
        with pytest.raises(FileExistsError, match="holds something already"):
            result.save(tmp_path / "own")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["diary.txt"]
    assert not (tmp_path / "own" / "samples.csv").exists() and (tmp_path / "own" / "strip.png").exists()


def test_some_of_the_samples_are_not_saved_as_if_they_were_all(samples: lcg.Samples, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"some of the samples that were drawn together, .*; save all of them, or"):
        samples[:2].save(tmp_path / "part")
    assert not (tmp_path / "part").exists()


# --- edits ------------------------------------------------------------------------------------------------------------


def test_edits_are_a_sequence_of_arrays(pipeline: Pipeline, samples: lcg.Samples, edits: lcg.Edits) -> None:
    reconstruction, smiling, bare = edits
    assert len(edits) == 3 and edits.steps == ("+smile", "-glasses") and len(edits[1:]) == 2
    assert np.array_equal(edits.images, bare) and np.array_equal(edits.reconstruction, reconstruction)
    assert all(np.array_equal(frame, pipeline.decode(z)) for frame, z in zip(edits, edits.latents, strict=True))
    expected = pipeline.edit_latents(edits.latents[0], ["+smile", "-glasses"], strength=0.5)
    assert torch.equal(edits.z_0, expected[1].z_0) and np.array_equal(edits[1], smiling)
    assert np.asarray(edits).shape == (3, 2, 64, 64, 3) and edits.sources is not None
    assert np.array_equal(np.asarray(edits.pil(1)), bare[1]) and np.array_equal(edits.sources, samples.images[:2])


def test_how_well_each_edit_took(pipeline: Pipeline, edits: lcg.Edits) -> None:
    assert edits.probabilities.shape == (3, 2, 2) and list(edits.took) == ["+smile", "-glasses"]
    bare = pipeline.log_probability(lcg.parse("~glasses", pipeline.schema), edits.z_0).exp().numpy()
    assert np.allclose(edits.took["-glasses"], bare, atol=1e-6)
    assert (edits.probabilities[0, :, 1] < 0.1).all() and (edits.took["-glasses"] > 0.9).all()
    assert repr(edits) == "Edits(2 images of 64x64: +smile (took in 2 of 2), -glasses (took in 2 of 2))"
    assert "strength 0.5" in edits._repr_html_()
    none = pipeline.edit(edits.sources)
    assert len(none) == 1 and not none.took and repr(none) == "Edits(2 images of 64x64: no edits)"
    assert "the classifier reads" not in none._repr_html_()


def test_a_strip_shows_the_reconstruction_where_it_differs(pipeline: Pipeline, samples, edits: lcg.Edits) -> None:
    assert edits.strip(scale=1).width == 4 * 66 - 2  # source, reconstruction, two edits
    assert pipeline.edit(samples[0], "+smile").strip(scale=1).width == 2 * 66 - 2


def test_a_session_shows_its_steps(pipeline: Pipeline, samples: lcg.Samples) -> None:
    session = pipeline.session(samples[:2]).add("+smile").add("-glasses")
    shown = pipeline.frames(session)
    assert shown.steps == ("+smile", "-glasses") and len(shown) == 3
    assert torch.equal(shown.z_0, session.result()) and shown.strength == pipeline.editing.strength


def test_saved_edits_are_what_the_command_leaves(pipeline: Pipeline, edits: lcg.Edits, tmp_path: Path) -> None:
    assert edits.sources is not None
    files = [str(tmp_path / f"{i}.png") for i in range(2)]
    for image, file in zip(edits.sources, files, strict=True):
        Image.fromarray(image).save(file)
    saved, made = edits.save(tmp_path / "saved"), tmp_path / "made"
    edit_job(files, ["+smile", "-glasses"], out=str(made), model="avatars", editing=pipeline.editing, strength=0.5)
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file())
    ours, theirs = (load_file(folder / "latents.safetensors")["z_0"] for folder in (saved, made))
    assert (ours - theirs).abs().max() < 1e-3
    session = pipeline.open_session(saved / "session.json")
    assert [step.text for step in session.steps] == ["+smile", "-glasses"] and session.strength == 0.5
    assert (session.result() - edits.z_0).abs().max() < 1e-3
    told = json.loads((saved / "provenance.json").read_text())
    assert told["command"] == "edit" and told["strength"] == 0.5 and set(told["took"]) == {"+smile", "-glasses"}


def test_a_strength_for_each_image_leaves_no_session(pipeline: Pipeline, samples: lcg.Samples, tmp_path: Path) -> None:
    edits = pipeline.edit(samples[:2], "+smile", strength=torch.tensor([0.2, 0.8]))
    folder = edits.save(tmp_path / "each")
    assert not (folder / "session.json").exists()
    assert json.loads((folder / "provenance.json").read_text())["strength"] == pytest.approx([0.2, 0.8])
    assert "each with its own strength" in edits._repr_html_()


def test_a_sweep_s_samples_know_their_weight(pipeline: Pipeline, tmp_path: Path) -> None:
    light, heavy = pipeline.sweep(["hat"], weights=[0.5, 4], n=1)["hat"]
    assert (light.pipeline.guidance.single, heavy.pipeline.guidance.single) == (0.5, 4)
    assert light.pipeline == replace(pipeline, guidance=light.pipeline.guidance)
    told = json.loads((heavy.save(tmp_path / "heavy") / "provenance.json").read_text())
    assert told["guidance"]["single"] == 4
