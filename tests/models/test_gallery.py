"""A gallery is held out, is linked to its model, and a model is the same without it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import lcg
from lcg import cli
from lcg.checkpoint import load_networks
from lcg.data.split import in_validation
from lcg.data.store import LatentStore
from lcg.generators.base import pixels_to_x
from lcg.guidance import parse
from lcg.metrics.judge import AvatarJudge
from lcg.models.description import Description
from lcg.models.folder import OWN_FILES
from lcg.models.gallery import FOLDER, HeldOut, open_gallery
from lcg.models.job import with_figures
from lcg.models.names import PACKAGED

SHIPPED = PACKAGED / "avatars"


@pytest.fixture(scope="module")
def model(demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery") / "model"
    words = ("--out", str(folder), "--store", str(demo.store), "--gallery", "8")
    assert cli.main(["export", *demo.networks, *words]) == 0
    return folder


def test_rows_are_held_out_and_those_of_the_store(demo, model: Path) -> None:
    gallery, store = open_gallery(model, Description.read(model)), LatentStore.open(demo.store)
    assert gallery is not None and len(gallery) == 8 and gallery.manifest.dtype == "float16"
    index = gallery.index()
    assert in_validation(index, 0.05).all()
    rows = np.flatnonzero(np.isin(store.index().numpy(), index.numpy()))
    torch.testing.assert_close(gallery.latents(), store.latents(rows).half().float(), rtol=0, atol=0)
    torch.testing.assert_close(gallery.labels(), store.labels(rows), rtol=0, atol=0, equal_nan=True)
    assert {path.name for path in model.iterdir()} == {*OWN_FILES, FOLDER}
    assert str(len(gallery)) in (model / "README.md").read_text().partition("In `gallery` lie ")[2][:10]


def test_a_model_is_the_same_without_it(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "plain")
    shutil.rmtree(tmp_path / "plain" / FOLDER)
    description = Description.read(tmp_path / "plain")
    assert open_gallery(tmp_path / "plain", description) is None and description == Description.read(model)
    settings = {"sampling": lcg.Sampling(steps=6)}
    one, other = (lcg.load(folder, **settings).sample([3]) for folder in (model, tmp_path / "plain"))
    assert torch.equal(one, other)


def test_a_model_with_a_gallery_is_replaced_by_one_without(demo, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "again")
    assert cli.main(["export", *demo.networks, "--out", str(tmp_path / "again"), "--overwrite", "true"]) == 0
    assert not (tmp_path / "again" / FOLDER).exists()


def test_the_gallery_of_another_model_is_refused(model: Path) -> None:
    expected = r"is no gallery of this model, it has another store; export the model again with `lcg export --gallery`"
    with pytest.raises(ValueError, match=expected):
        open_gallery(model, Description.read(SHIPPED))
    with pytest.raises(ValueError, match="another generator"):
        description = Description.read(model)
        other = {**description.generator, "weights_sha256": "0" * 64}
        open_gallery(model, Description(**{**vars(description), "generator": other}))


def test_what_cannot_be_a_gallery_is_refused_before_anything_is_written(demo, tmp_path: Path) -> None:
    from lcg.models.job import export_job

    with pytest.raises(ValueError, match="`gallery` must be >= 0, and needs `store`, got 5; give --store"):
        export_job(demo.prior, demo.classifier, out=str(tmp_path / "a"), gallery=5)
    with pytest.raises(ValueError, match=r"`gallery` must be at most the \d+ rows of .* held out, got 100000"):
        export_job(demo.prior, demo.classifier, out=str(tmp_path / "a"), store=str(demo.store), gallery=100_000)
    networks = load_networks(demo.prior, demo.classifier)  # without the record of their run
    with pytest.raises(ValueError, match="does not say which were; give a checkpoint in the folder"):
        HeldOut.of(LatentStore.open(demo.store), 1, networks[0])
    assert not (tmp_path / "a").exists()
    assert HeldOut.of(LatentStore.open(demo.store), 1, *map(with_figures, networks)).fraction == 0.05


# --- the one that ships -----------------------------------------------------------------------------------------------


def test_the_shipped_gallery_decodes_to_what_its_labels_say() -> None:
    gallery = open_gallery(SHIPPED, Description.read(SHIPPED))
    assert gallery is not None and len(gallery) == 1000
    gallery.verify()
    rows = slice(0, 200)
    pipeline, judge = lcg.load("avatars"), AvatarJudge()
    images = pipeline.decode(pipeline.statistics.standardise(gallery.latents(rows)))
    seen = judge.judge(pixels_to_x(torch.from_numpy(images))).labels
    labels = gallery.labels(rows)
    for name in ("glasses", "beard", "smile", "hat", "long_hair", "dark_skin", "hair_color", "clothes_color"):
        told, found = labels[:, gallery.schema.index(name)], seen[:, judge.schema.index(name)]
        known = ~told.isnan() & ~found.isnan()
        assert float((told == found)[known].float().mean()) >= 0.95, name
    assert sum(path.stat().st_size for path in (SHIPPED / FOLDER).iterdir()) <= 400 * 1024


def test_the_shipped_model_makes_what_is_asked_of_it() -> None:
    pipeline, judge = lcg.load("avatars"), AvatarJudge()
    images = pipeline.generate("glasses & hat & ~beard", n=64).images
    labels = judge.judge(pixels_to_x(torch.from_numpy(images))).labels
    formula = parse("glasses & hat & ~beard", judge.schema)
    assert float(formula.holds(labels).float().mean()) >= 0.95
