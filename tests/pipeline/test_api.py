"""The Python API: what `lcg` has, what `lcg.load` is given, images in every form, readings, displays."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lcg
from lcg.guidance import log_probability, parse_edit
from lcg.pipeline import Pipeline
from lcg.pipeline.given import as_pixels
from lcg.results.edited import _statement

SHAPE = (3, 64, 64)
SCHEMA = lcg.Schema((lcg.Attribute("hat"),))


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return lcg.load("avatars", sampling=lcg.Sampling(steps=8), editing=lcg.Editing(steps=4))


@pytest.fixture(scope="module")
def samples(pipeline: Pipeline) -> lcg.Samples:
    return pipeline.generate("glasses & ~beard", n=3)


@pytest.fixture
def picture(samples: lcg.Samples) -> np.ndarray:
    return samples.images[0]


class Page(HTMLParser):
    """What is on a page, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# --- the package ------------------------------------------------------------------------------------------------------


def test_every_name_of_the_package_is_there() -> None:
    for name in lcg.__all__:
        assert getattr(lcg, name) is not None
    assert lcg.Pipeline is Pipeline
    with pytest.raises(AttributeError, match=r"no attribute 'Pipelin'; did you mean Pipeline or Sampling\? it has: "):
        lcg.Pipelin  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'xyzzy'; it has: Attribute,"):
        lcg.xyzzy  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"prior": 3},
            r"`prior` must be the name or the folder of a model, or a checkpoint, got int; such as lcg\.load",
        ),
        ({"prior": "a", "classifier": []}, "`classifier` must be the name .* got list"),
        ({"generator": "avatars"}, r"`generator` must be an lcg\.Generator, got str; make one of its class"),
        ({"generator": lcg.Generator}, r"`generator` must be an lcg\.Generator, got the class Generator; make one"),
        ({"execution": "fast"}, r"`execution` must be an Execution, got str; such as Execution\(\)"),
        ({"sampling": {"steps": 3}}, r"`sampling` must be an lcg\.Sampling, got dict; such as lcg\.Sampling\(\)"),
        ({"samplings": lcg.Sampling()}, r"unknown setting 'samplings'; did you mean 'sampling'\? a pipeline has: "),
        ({"device": 0}, "`device` must be 'auto', 'cpu' or 'cuda', got int"),
    ],
)
def test_what_load_cannot_use_is_a_type_error(arguments: dict, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        lcg.load(**{"prior": "avatars", **arguments})


def test_devices_are_found_or_refused() -> None:
    place = lcg.load("avatars", device="auto").device
    assert place.type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="`device` must be 'auto', 'cpu' or 'cuda', got 'gpu'"):
        lcg.load("avatars", device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="`device` is 'cuda', but no CUDA device was found; use device='cpu' or"):
            lcg.load("avatars", device="cuda")


# --- images in every form ---------------------------------------------------------------------------------------------


def test_the_same_pixels_in_every_form(samples: lcg.Samples, picture: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "one.png"
    Image.fromarray(picture).save(file)
    forms = picture, picture[None], Image.fromarray(picture), str(file), file, samples[0], samples[:1], [picture]
    for form in (*forms, Image.fromarray(picture).convert("RGBA")):
        assert np.array_equal(as_pixels(form, SHAPE), picture[None])
    assert len(as_pixels([*forms, samples], SHAPE)) == len(forms) + 3


def test_turned_photographs_are_put_upright(picture: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(picture[::-1, ::-1].copy()).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(as_pixels(tmp_path / "turned.png", SHAPE), picture[None])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda x: x / 255,
            TypeError,
            r"must be uint8 in 0\.\.255, got float64; of values in \[0, 1\]: \(images \* 255\)",
        ),
        (lambda x: x / 127.5 - 1, TypeError, r"got float64; of values in \[-1, 1\]: \(\(images \+ 1\) \* 127\.5\)"),
        (lambda x: x * 1.0, TypeError, r"use images\.round\(\)\.clip\(0, 255\)\.astype\(np\.uint8\)"),
        (lambda x: x.astype(int), TypeError, r"got int64; use images\.astype\(np\.uint8\)"),
        (lambda x: np.moveaxis(x, -1, -3), ValueError, r"got \(3, 64, 64\); channels come last: np\.moveaxis"),
        (
            lambda x: x[..., 0],
            ValueError,
            r"got \(64, 64\); give grey images 3 channels: np\.stack\(\[image\] \* 3, -1\)",
        ),
        (
            lambda x: np.concatenate([x, x[..., :1]], -1),
            ValueError,
            r"leave out the transparency: images\[\.\.\., :3\]",
        ),
        (lambda x: x[:32], ValueError, r"must be 64x64 with 3 channels, got \(32, 64, 3\); resize them: .*\(64, 64\)"),
        (lambda x: x[None][:0], ValueError, "`images` must hold at least one image, got an array of none"),
        (lambda x: [], ValueError, "`images` must hold at least one image, got an empty list"),
        (
            lambda x: torch.zeros(1, 3, 64, 64),
            TypeError,
            "got a tensor; of x .*x_to_pixels.* of latents `edit_latents`",
        ),
        (lambda x: {"image": x}, TypeError, "must be uint8 arrays, PIL images, paths or samples, got dict"),
        (
            lambda x: Image.new("RGB", (128, 128)),
            ValueError,
            r"must be 64x64 pixels .*, got 128x128; image\.resize\(\(64",
        ),
        (lambda x: Image.new("RGB", (128, 64)), ValueError, "got 128x64; crop it to the same proportions, then image"),
        (lambda x: "nowhere.png", FileNotFoundError, r"no image at nowhere\.png; give the path of an image file"),
    ],
)
def test_images_that_are_none_are_refused_with_what_to_do(change, error, message: str, picture, pipeline) -> None:
    with pytest.raises(error, match=message):
        pipeline.edit(change(picture), "+smile")


def test_the_line_that_an_error_names_makes_the_image_fit(picture: np.ndarray) -> None:
    """The advice is code; the code is right."""
    for given in (picture / 255, picture / 127.5 - 1, np.moveaxis(picture, -1, -3), picture.repeat(2, 0).repeat(2, 1)):
        with pytest.raises((TypeError, ValueError)) as caught:
            as_pixels(given, SHAPE)
        line = re.split(r"\]: |last: |them: ", str(caught.value))[-1]
        mended = eval(line, {"np": np, "Image": Image, "images": given, "image": given})
        assert np.abs(as_pixels(mended, SHAPE)[0].astype(int) - picture).max() <= 60
        if given.size == picture.size:
            assert np.array_equal(mended, picture)


def test_files_that_are_no_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    with pytest.raises(ValueError, match=r"broken\.png is not an image that can be read .*; convert it to PNG"):
        as_pixels(tmp_path / "broken.png", SHAPE)
    with pytest.raises(IsADirectoryError, match=r"is a folder; give a list of its files, such as sorted\(Path\("):
        as_pixels(tmp_path, SHAPE)


def test_samples_are_edited_without_a_detour_through_the_encoder(pipeline: Pipeline, samples: lcg.Samples) -> None:
    for given in (samples, list(samples), samples[:]):
        assert torch.equal(pipeline.edit(given, "+smile").latents[0], samples.z_0)
        assert torch.equal(pipeline.session(given).z_0, samples.z_0)
    again = pipeline.edit(samples.images, "+smile").latents[0]
    assert not torch.equal(again, samples.z_0) and torch.equal(again, pipeline.encode(samples))
    other = lcg.load("avatars")  # whose latents may be others
    assert torch.equal(other.edit(samples[0]).latents[0], other.encode(samples.images[:1]))


# --- readings ---------------------------------------------------------------------------------------------------------


def test_english_is_read_and_generated(pipeline: Pipeline) -> None:
    reading = pipeline.read("a smiling person with glasses and no beard")
    assert str(reading.formula) == "smile & glasses & ~beard"
    assert repr(reading) == "Reading('a smiling person with glasses and no beard' is read as smile & glasses & ~beard)"
    images = [pipeline.generate(asked, n=2).images for asked in (reading, reading.formula, str(reading.formula))]
    assert np.array_equal(images[0], images[1]) and np.array_equal(images[0], images[2])
    with pytest.raises(TypeError, match="`formula` must be text such as 'glasses & ~beard', got int"):
        pipeline.generate(3)  # type: ignore[arg-type]


def test_attributes_are_probabilities_by_name(pipeline: Pipeline, samples: lcg.Samples) -> None:
    beliefs = pipeline.attributes(samples)
    assert list(beliefs) == list(pipeline.schema.names) and len(beliefs) == len(pipeline.schema)
    expected = pipeline.log_probability(lcg.parse("glasses", pipeline.schema), samples.z_0).exp()
    assert np.allclose(beliefs["glasses"], expected.numpy(), atol=1e-6)
    assert beliefs["top"].shape == (3, 14) and np.allclose(beliefs["top"].sum(1), 1, atol=1e-5)
    assert beliefs.likely(0)["glasses"] == "glasses" and beliefs.likely(0)["beard"] == "~beard"
    assert "beard_color" not in beliefs.likely(0)  # nobody's beard has no colour
    with pytest.raises(ValueError, match="unknown attribute 'smlie'; did you mean 'smile'"):
        beliefs["smlie"]
    assert "glasses" in beliefs._ipython_key_completions_() and "top" in pipeline.schema._ipython_key_completions_()
    assert np.array_equal(pipeline.attributes(samples[1])["glasses"], beliefs["glasses"][1:2])


def test_continuous_attributes_are_read_by_their_mean() -> None:
    schema = lcg.Schema((lcg.Attribute("age", "continuous"), lcg.Attribute("size", "categorical", ("s", "l"))))
    outputs = {"age": torch.tensor([[0.7, -4.0], [0.1, 0.0]]), "size": torch.tensor([[0.0, 2.0], [1.0, 0.0]])}
    beliefs = lcg.Beliefs.of(schema, outputs, np.zeros((2, 8, 8, 3), np.uint8))
    assert beliefs["age"].tolist() == pytest.approx([0.7, 0.1])
    assert beliefs.likely(0) == {"age": "age=0.7", "size": "size=l"}
    assert repr(beliefs) == "Beliefs(2 images, by name: age, size)" and len(Page(beliefs._repr_html_()).images) == 2


def test_a_target_took_as_far_as_the_attribute_lies_near_it() -> None:
    """P(|y - 0.7| < 0.05) of a Gaussian, in closed form."""
    schema = lcg.Schema((lcg.Attribute("age", "continuous"),))
    target = parse_edit("age=0.7", schema)
    log_p = log_probability(_statement(target), {"age": torch.tensor([[0.7, 2 * math.log(0.05)]])})
    assert float(log_p.exp()) == pytest.approx(math.erf(1 / math.sqrt(2)), abs=1e-6)
    assert _statement(parse_edit("hat", SCHEMA)) == parse_edit("hat", SCHEMA)


# --- how it shows itself ----------------------------------------------------------------------------------------------


def test_everything_shows_itself_in_a_notebook(pipeline: Pipeline, samples: lcg.Samples) -> None:
    edits = pipeline.edit(samples, "+smile")
    session = pipeline.session(samples).add("+smile", 0.5)
    reading, plan = pipeline.read("someone with glasses"), samples.plan
    assert plan is not None
    shown = (
        pipeline,
        samples,
        edits,
        pipeline.attributes(samples),
        pipeline.schema,
        session,
        reading,
        plan,
        plan.support,
    )
    for thing in shown:
        html, text = thing._repr_html_(), repr(thing)
        page = Page(html)
        assert not re.search(r"<script|https?://|file:", html)
        assert all(image["alt"] and str(image["src"]).startswith("data:image/png;base64,") for image in page.images)
        assert len(text) < 400 and "tensor" not in text and "\n" not in text
    assert len(Page(samples._repr_html_()).images) == 3 and len(Page(edits._repr_html_()).images) == 6
    assert repr(session) == "EditSession(3 sources: +smile x0.5)" and "can undo" in session._repr_html_()
    assert repr(lcg.parse("glasses & ~hat", pipeline.schema)) == "Formula('glasses & ~hat')"


def test_strange_names_are_escaped() -> None:
    schema = lcg.Schema((lcg.Attribute("fur", "categorical", ("<script>", "a & b")), lcg.Attribute("tame")))
    assert "<script>" not in schema._repr_html_() and "&lt;script&gt;" in schema._repr_html_()
    assert repr(schema) == "Schema(2 attributes: fur, tame)"
