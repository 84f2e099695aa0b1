"""The studio on the model that ships: the same bits as the pipeline, values that do not change, and many at once."""

import io
import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lcg
from lcg.app.gallery import Gallery, of_prior, of_store
from lcg.app.refusal import Refused
from lcg.app.studio import Studio
from lcg.app.work import MAX_WEIGHT, Work
from lcg.data.store import LatentStore, LatentStoreWriter
from lcg.models.names import PACKAGED
from lcg.settings import Editing, Sampling


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio.open()


@pytest.fixture(scope="module")
def quick(studio: Studio) -> Studio:
    """The same model in few steps, where it does not matter how good its images are."""
    pipeline = replace(studio.pipeline, editing=Editing(steps=8), sampling=Sampling(steps=8))
    return Studio(pipeline, studio.gallery, "quick")


@pytest.fixture(scope="module")
def work(studio: Studio) -> Work:
    return studio.work(studio.from_gallery(3))


def file_of(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


# --- formulas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "support", "verdict"),
    [
        ("glasses & hat", "common", "knows this well: about 1"),
        ("beard & long_hair & hair_color=red", "rare|beyond", ""),
        ("beard & long_hair & hair_color=red & glasses_style=round & mouth=sad", "beyond", "hardly ever seen"),
        ("hat & ~hat", "impossible", "contradicts itself"),
        ("hat | ~hat", "certain", "asks for nothing"),
        ("hat^0.0", "certain", "asks for nothing"),
    ],
)
def test_trust_says_what_the_evidence_says(studio: Studio, formula: str, support: str, verdict: str) -> None:
    trust = studio.trust(formula)
    assert trust is not None and trust.support in support.split("|") and verdict in trust.verdict
    plan = studio.pipeline.plan(lcg.guidance.parse(formula, studio.schema))
    assert (trust.p, trust.satisfying, trust.labelled) == (
        plan.support.p,
        plan.support.satisfying,
        plan.support.decided,
    )
    assert trust.can_sample == (trust.support not in ("impossible", "certain"))
    assert trust.extrapolates == (plan.extrapolate and trust.can_sample) and (trust.warnings != ()) == (
        trust.support == "beyond"
    )


def test_strangers_formulas_do_not_fill_the_memory(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcg.app.drawing.FORMULAS", 5)
    for weight in range(8):
        studio.trust(f"hat^{weight + 1}.5")
    assert len(studio.pipeline.supports) <= 5
    assert studio.trust("") is None


# --- generation ------------------------------------------------------------------------------------------------------


def test_samples_are_those_of_the_pipeline_with_what_the_classifier_reads(studio: Studio) -> None:
    shown = studio.generate("glasses & ~hat", n=4, seed=7)
    z_0 = studio.pipeline.sample(range(7, 11), lcg.guidance.parse("glasses & ~hat", studio.schema))
    assert torch.equal(shown.z_0, z_0) and np.array_equal(shown.images, studio.pipeline.decode(z_0))
    assert shown.seeds == (7, 8, 9, 10) and len(shown) == shown.wanted == 4 and min(shown.probabilities) > 0.5
    source = studio.from_generated(shown, 2)
    assert np.array_equal(source.image, shown.images[2]) and source.title == "glasses & ~hat, seed 9"


def test_many_images_come_part_by_part(quick: Studio) -> None:
    parts = list(quick.generating(None, n=20, seed=0))
    assert [len(part) for part in parts] == [16, 20] and parts[0].wanted == 20
    assert np.array_equal(parts[0].images, parts[1].images[:16]) and parts[1].probabilities == ()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("glases", 4, 0), r"Column 1: unknown attribute 'glases'"),
        (("hat & ~hat", 4, 0), "No image can be like this"),
        (("hat", 65, 0), "The number of images must be a whole number from 1 to 64, got 65"),
        (("hat", 0, 0), "from 1 to 64"),
        (("hat", 2.5, 0), "from 1 to 64, got 2.5"),
        (("hat", float("nan"), 0), "from 1 to 64, got nan"),
        (("hat", True, 0), "from 1 to 64, got True"),
        (("hat", 4, -1), "The seed must be a whole number from 0 to 4294967295, got -1"),
        (("hat", 4, "3"), "The seed must be"),
    ],
)
def test_what_cannot_be_generated_is_refused_at_once(studio: Studio, asked: tuple, message: str) -> None:
    with pytest.raises(Refused, match=message):
        studio.generating(*asked)


# --- sources ---------------------------------------------------------------------------------------------------------


def test_a_row_of_the_gallery_has_its_labels_and_the_classifier_agrees(studio: Studio) -> None:
    for row in range(4):
        source, labels = studio.from_gallery(row), studio.gallery.labels[row]
        beliefs = studio.beliefs(source)
        assert source.labels is not None and source.labels.isnan().equal(labels[None].isnan())
        for name in ("glasses", "hat", "beard"):
            belief = beliefs[name]
            assert belief.asked == bool(labels[studio.schema.index(name)]) and belief.probability > 0.5
            assert sum(belief.distribution.values()) == pytest.approx(1, abs=1e-5)
        assert beliefs["hat_color"].applies == (beliefs["hat"].asked is True)
    assert np.array_equal(studio.gallery_images([2, 0])[1], studio.from_gallery(0).image)
    assert studio.gallery_images([]).shape == (0, 64, 64, 3)


def test_a_seed_is_a_sample_of_the_prior(studio: Studio) -> None:
    assert torch.equal(studio.from_seed(5).z_0, studio.pipeline.sample([5]))


def test_an_upload_has_its_reconstruction_beside_it(studio: Studio) -> None:
    image = studio.from_gallery(9).image
    source = studio.from_upload(file_of(image))
    assert np.array_equal(source.image, image) and source.error < 0.02 and source.warning is None
    assert torch.equal(source.z_0, studio.pipeline.encode(image[None]))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    poor = studio.from_upload(file_of(noise))
    assert poor.error > 0.1 and "reconstruction is poor" in str(poor.warning)


def test_sources_that_are_not_there_are_refused(studio: Studio) -> None:
    for ask in (
        lambda: studio.from_gallery(len(studio.gallery)),
        lambda: studio.from_gallery(-1),
        lambda: studio.gallery_images(range(300)),
        lambda: studio.from_seed(-1),
        lambda: studio.from_generated(studio.generate(n=1), 1),
        lambda: studio.from_upload(b"none"),
    ):
        with pytest.raises(Refused):
            ask()


# --- editing ---------------------------------------------------------------------------------------------------------


def test_an_edit_is_that_of_the_pipelines_session_bit_by_bit(studio: Studio, work: Work) -> None:
    source = studio.from_gallery(3)
    changed = work.ask("glasses", "+glasses").ask("hair_color", "hair_color=red", 0.5).going(0.8)
    session = studio.pipeline.session(source.z_0, source.labels, 0.8).add("+glasses").add("hair_color=red", 0.5)
    edited = studio.edit(changed)
    assert torch.equal(edited.z_0, session.result()) and not edited.preview
    assert np.array_equal(edited.image, studio.pipeline.decode(session.result())[0])
    assert [a.text for a in edited.asked] == ["+glasses", "hair_color=red"] and edited.asked[0].probability > 0.9
    assert edited.beliefs["glasses"].value == "yes" and edited.moved > 0 and edited.changed > 0


def test_an_upload_is_edited_as_by_the_pipeline(studio: Studio) -> None:
    image = studio.from_gallery(9).image
    edited = studio.edit(studio.work(studio.from_upload(file_of(image))).ask("smile", "-smile"))
    session = studio.pipeline.session(image[None]).add("-smile")
    assert np.array_equal(edited.image, studio.pipeline.decode(session.result(), code=session.code)[0])


def test_nothing_asked_is_the_source(studio: Studio, work: Work) -> None:
    for edited in (studio.edit(work), studio.preview(work), studio.edit(work.ask("hat", "+hat", 0.0))):
        assert torch.equal(edited.z_0, work.z_0) and edited.moved == edited.changed == 0 and edited.asked == ()


def test_a_preview_is_near_what_it_is_a_preview_of(studio: Studio) -> None:
    off = []
    for row in range(2):
        work = studio.work(studio.from_gallery(row))
        sign = "-" if studio.beliefs(studio.from_gallery(row))["smile"].asked else "+"
        changed = work.ask("smile", f"{sign}smile")
        preview, edited = studio.preview(changed), studio.edit(changed)
        assert preview.preview and preview.beliefs["smile"].value == edited.beliefs["smile"].value
        off.append(float(np.abs(preview.image.astype(float) - edited.image).mean()) / 255)
    assert np.mean(off) < 0.02


def test_work_is_a_value(studio: Studio, work: Work) -> None:
    first = work.ask("glasses", "+glasses")
    second = first.ask("hat", "+hat").ask("glasses", "-glasses")
    assert [step.text for step in second.steps] == ["-glasses", "+hat"] and second.asked("glasses") == "-glasses"
    assert [step.text for step in first.steps] == ["+glasses"] and work.steps == () and not work.can_undo
    back = second.undone().undone()
    assert back.steps == first.steps and back.redone().steps == second.undone().steps
    assert second.ask("glasses", None).asked("glasses") is None and second.reset().steps == ()
    assert second.reset().undone().steps == second.steps and work.undone() is work and second.redone() is second
    assert second.first(1).steps == second.steps[:1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.ask("hut", "+hat"), "unknown attribute 'hut'; did you mean 'hat'"),
        (lambda w: w.ask("hat", "+glasses"), r"'\+glasses' is no edit of hat"),
        (lambda w: w.ask("hat", "+hut"), "unknown attribute 'hut'"),
        (lambda w: w.ask("hat", "+hat", -1), "`weight` must be finite and >= 0, got -1"),
        (lambda w: w.ask("hat", "+hat", 101), "The weight of an edit is at most 100, got 101; 1 is usual"),
        (lambda w: w.ask("hat", "+hat", "1"), "`weight` must be a number"),
        (lambda w: w.going(1.5), "The strength must be a number from 0"),
        (lambda w: w.going(float("nan")), "The strength must be a number from 0"),
    ],
)
def test_changes_that_make_no_sense_are_refused(work: Work, change, message: str) -> None:
    with pytest.raises(Refused, match=message):
        change(work)


def test_the_largest_weights_still_end_in_an_image(quick: Studio, work: Work) -> None:
    changed = work.ask("glasses", "+glasses", MAX_WEIGHT).ask("hair_color", "hair_color=red", MAX_WEIGHT).going(1.0)
    assert quick.edit(changed).z_0.isfinite().all()
    with pytest.raises(Refused, match="With these weights the edit leaves all that can be shown; lower them"):
        quick._editing._shown(work, work.z_0 * float("nan"), preview=False)


def test_work_of_another_model_is_refused(studio: Studio) -> None:
    with pytest.raises(Refused, match="work on another model's image"):
        studio.edit(Work(torch.zeros(1, 3), studio.schema))


def test_other_methods_answer_the_same_request(quick: Studio, work: Work) -> None:
    changed = work.ask("glasses", "-glasses" if quick.gallery.labels[3, 0] else "+glasses")
    rivals = {rival.name: rival for rival in quick.compare(changed)}
    assert list(rivals) == ["lcg", "lcg without keeping", "arithmetic", "probe", "interfacegan"]
    edited = quick.edit(changed)
    assert rivals["lcg"].edited is not None and torch.equal(rivals["lcg"].edited.z_0, edited.z_0)
    for rival in rivals.values():
        assert rival.problem is None and rival.edited is not None and rival.edited.moved > 0, rival.name
    moved = {strength: quick.compare(changed.going(strength))[2].edited for strength in (0.0, 0.45, 0.9)}
    assert [None if e is None else round(e.moved / rivals["arithmetic"].edited.moved, 3) for e in moved.values()] == [
        0.0,
        0.5,
        1.0,
    ]


def test_a_strip_has_every_step(quick: Studio, work: Work) -> None:
    changed = work.ask("glasses", "+glasses").ask("hat", "-hat")
    frames = quick.strip(changed)
    assert [frame.title for frame in frames] == ["source", "+glasses", "-hat"]
    assert np.array_equal(frames[0].image, quick.from_gallery(3).image)
    assert np.array_equal(frames[2].image, quick.edit(changed).image)
    with Image.open(io.BytesIO(quick.strip_png(frames))) as picture:
        assert picture.format == "PNG" and picture.width > 3 * 128
    ends = quick.strengths(work.ask("hat", "+hat"), (0, 0.9))
    assert [f.title for f in ends] == ["0", "0.9"] and np.array_equal(ends[0].image, frames[0].image)


def test_an_image_is_taken_home_as_png(studio: Studio) -> None:
    image = studio.from_gallery(0).image
    with Image.open(io.BytesIO(studio.png(image, scale=2))) as picture:
        assert np.array_equal(np.asarray(picture)[::2, ::2], image) and picture.size == (128, 128)
    with pytest.raises(Refused, match="The scale must be a whole number from 1 to 16, got 99"):
        studio.png(image, 99)
    with pytest.raises(Refused, match="nothing to draw"):
        studio.strip_png([])
    with pytest.raises(Refused, match="A strip has 1 to 16 strengths, got 17"):
        studio.strengths(Work(torch.zeros(1, 64), studio.schema), [0.1] * 17)


# --- sessions --------------------------------------------------------------------------------------------------------


def test_a_session_comes_back_with_its_history(studio: Studio, work: Work) -> None:
    saved = work.ask("glasses", "+glasses").going(0.5).ask("hat", "+hat").undone()
    source, again = studio.replay(studio.save(saved))
    assert again.state == saved.state and again.can_redo and again.redone().asked("hat") == "+hat"
    assert torch.equal(source.z_0, work.z_0) and np.array_equal(source.image, studio.from_gallery(3).image)
    assert torch.equal(studio.edit(again).z_0, studio.edit(saved).z_0)


def altered(studio: Studio, work: Work, **entries: object) -> str:
    return json.dumps({**json.loads(studio.save(work)), **entries})


def test_other_sessions_are_refused_in_words(studio: Studio, work: Work) -> None:
    pipeline = studio.pipeline
    z_0, schema = work.z_0, studio.schema
    state, heavy = {"steps": [], "strength": 2.0}, {"steps": [["+hat", 1e9]], "strength": None}
    for text, message in (
        ("{", "a session must be JSON"),
        ("x" * (5 * 2**20), "A session file has at most 4 million characters"),
        (3, "A session file has at most"),
        (altered(studio, work, version=9), "`version` must be 1, got 9"),
        (altered(studio, work, history=[state]), "A strength in the session is 2; it must be from 0"),
        (altered(studio, work, history=[heavy]), "A weight in the session is above 100"),
        (altered(studio, work, history=[{"steps": [["+hut", 1.0]], "strength": None}]), "unknown attribute 'hut'"),
        (Work(z_0.expand(2, -1), schema).to_json(), "The session has 2 images, here one is edited at a time"),
        (Work(z_0.double(), schema).to_json(), r"latents \(64,\) in float64, this model's are \(64,\) in float32"),
        (Work(z_0[:, :8], schema).to_json(), r"latents \(8,\) in float32"),
        (Work(z_0 * 1e6, schema).to_json(), "latent is of no image of this model"),
        (Work(z_0, schema, code=z_0).to_json(), "a code beside its latent, which this model's generator does not know"),
        (Work(z_0, schema, torch.full((1, len(schema)), 99.0)).to_json(), "must be a whole number in"),
    ):
        with pytest.raises(Refused, match=message) as caught:
            studio.replay(text)
        assert "\n" not in str(caught.value)
    assert pipeline is studio.pipeline


# --- exploring -------------------------------------------------------------------------------------------------------


def test_the_gallery_lies_in_the_plane(studio: Studio) -> None:
    points = studio.points("pca", "glasses")
    assert points.xy.shape == (1000, 2) and np.abs(points.xy).max() <= 1 + 1e-6 and points.ready
    assert points.values == ("no", "yes") and points.separation > 0.5 and "glasses" in points.verdict
    assert points.nearest(*map(float, points.xy[17])) == 17
    assert np.isnan(studio.points("pca", "beard_color").colours).any()
    assert studio.points().attribute is None and np.isnan(studio.points().separation)
    for method, attribute in (("umap", None), ("pca", "hut")):
        with pytest.raises(Refused):
            studio.points(method, attribute)


def test_tsne_is_computed_once_in_the_background(studio: Studio) -> None:
    few = Studio(studio.pipeline, Gallery(studio.gallery.z_0[:60], studio.gallery.labels[:60], "60"), "few")
    assert not few.points("tsne").ready and few.points("tsne").method == "pca"
    waited = time.monotonic()
    while not few.points("tsne").ready and time.monotonic() - waited < 60:
        time.sleep(0.05)
    points = few.points("tsne", "hat")
    assert points.method == "tsne" and points.xy.shape == (60, 2) and points.xy is few.points("tsne").xy


# --- galleries -------------------------------------------------------------------------------------------------------


def test_any_store_of_the_generator_is_a_gallery(studio: Studio, tmp_path: Path) -> None:
    shipped = LatentStore.open(PACKAGED / "avatars" / "gallery")
    writer = LatentStoreWriter(tmp_path / "store", (64,), shipped.schema, dict(shipped.provenance))
    writer.append(shipped.latents(slice(0, 50)), shipped.labels(slice(0, 50)), shipped.index(slice(0, 50)))
    store = writer.finish()
    assert torch.equal(of_store(store, studio.pipeline).z_0, studio.gallery.z_0[:50])
    foreign = {**shipped.provenance, "generator": {"weights_sha256": "0" * 64}}
    writer = LatentStoreWriter(tmp_path / "foreign", (64,), shipped.schema, foreign)
    writer.append(shipped.latents(slice(0, 2)), shipped.labels(slice(0, 2)), shipped.index(slice(0, 2)))
    with pytest.raises(ValueError, match="was encoded by a generator with weights 000000000000, the model's has"):
        of_store(writer.finish(), studio.pipeline)


def test_large_stores_are_sampled_by_seed(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcg.app.gallery.MOST", 100)
    store = LatentStore.open(PACKAGED / "avatars" / "gallery")
    one, same, other = (of_store(store, studio.pipeline, seed) for seed in (0, 0, 1))
    assert len(one) == 100 and torch.equal(one.z_0, same.z_0) and not torch.equal(one.z_0, other.z_0)
    assert one.about == "100 of 1000 images of gallery, with their labels"


def test_without_a_gallery_the_prior_is_one(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcg.app.gallery.SAMPLED", 4)
    gallery = of_prior(replace(studio.pipeline, sampling=Sampling(steps=6)))
    assert len(gallery) == 4 and not gallery.known and gallery.labels.shape == (4, len(studio.schema))


# --- many at once ----------------------------------------------------------------------------------------------------


def test_clients_at_once_get_what_each_would_get_alone(quick: Studio) -> None:
    works = [quick.work(quick.from_gallery(row)).ask("hat", "+hat") for row in range(8)]
    alone = [quick.edit(work).z_0 for work in works]
    again = [Work(work.z_0, quick.schema, work.labels).ask("hat", "+hat") for work in works]
    results: dict[int, torch.Tensor] = {}

    def client(number: int) -> None:
        quick.preview(again[number])
        results[number] = quick.edit(again[number]).z_0

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(60)
    for number in range(8):  # answered together with others, it differs by rounding
        torch.testing.assert_close(results[number], alone[number], rtol=0, atol=1e-3)


def test_sources_that_are_remembered_are_bounded(studio: Studio) -> None:
    small = Studio(replace(studio.pipeline, editing=Editing(steps=4)), studio.gallery, "small")
    small._editing._refined._editors.most = small._editing._reconstructed.most = 3
    for row in range(6):
        small.edit(small.work(small.from_gallery(row)).ask("hat", "+hat"))
    assert len(small._editing._refined._editors) == 3 and len(small._editing._reconstructed) == 3
