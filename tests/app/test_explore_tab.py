"""The map's requests and answers, on the gallery of the model that ships: no page, no browser."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

pytest.importorskip("gradio", reason="needs gradio: pip install -e '.[app]'")

from lcg.app.desk import FAILED
from lcg.app.edit_tab import edit_tab
from lcg.app.explore_tab import explore_tab
from lcg.app.gallery_map import answered, in_words
from lcg.app.studio import Studio
from lcg.schema import Attribute


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio.open("avatars")


def ask(studio: Studio, do: str, **more: Any) -> dict[str, Any]:
    """The answer after a journey as JSON, as a browser gets it."""
    _, answer = answered(studio, None, json.loads(json.dumps({"do": do, "ticket": 7, **more})))
    assert answer["ticket"] == 7
    return json.loads(json.dumps(answer, allow_nan=False))


def test_the_map_has_every_image_once_and_the_legend_counts_them(studio: Studio) -> None:
    found = ask(studio, "map", method="pca", attribute="hair_color")["map"]
    assert len(found["xy"]) == 2 * len(studio.gallery) and all(-1 <= place <= 1 for place in found["xy"])
    labels = studio.gallery.labels[:, studio.schema.index("hair_color")].tolist()
    assert found["colours"] == [None if math.isnan(label) else label for label in labels]
    assert None in found["colours"]  # a detail does not apply to all
    assert found["values"] == list(studio.schema["hair_color"].values) and found["title"] == "hair color"
    assert "hair color" in found["verdict"] and found["ready"] is True


def test_a_map_without_an_attribute_has_one_colour(studio: Studio) -> None:
    found = ask(studio, "map", method="pca", attribute=None)["map"]
    assert set(found["colours"]) == {0} and found["values"] == [] and found["verdict"] == ""


def test_a_formula_highlights_what_satisfies_it(studio: Studio) -> None:
    schema = studio.schema
    found = ask(studio, "filter", text="glasses & ~hat")["found"]
    glasses, hat = studio.gallery.labels[:, schema.index("glasses")], studio.gallery.labels[:, schema.index("hat")]
    assert found["rows"] == [row for row, (g, h) in enumerate(zip(glasses, hat, strict=True)) if g == 1 and h == 0]
    assert found["text"] == f"{len(found['rows'])} images satisfy glasses & ~hat, of {len(studio.gallery)}."
    rest = ask(studio, "filter", text="~(glasses & ~hat)")["found"]
    assert len(found["rows"]) + len(rest["rows"]) == len(studio.gallery)


def test_an_empty_formula_highlights_nothing_and_a_wrong_one_says_why(studio: Studio) -> None:
    assert ask(studio, "filter", text="  ")["found"] == {"rows": None, "text": "", "problem": False}
    wrong = ask(studio, "filter", text="glases")["found"]
    assert wrong["rows"] is None and wrong["problem"] and "glasses" in wrong["text"]
    assert ask(studio, "filter", text=["glasses"])["found"]["rows"] is None


def test_a_chosen_image_tells_its_labels_and_is_remembered(studio: Studio) -> None:
    chosen, answer = answered(studio, None, {"do": "choose", "number": 5})
    assert chosen == 5
    told = dict(answer["chosen"]["labels"])
    labels = studio.gallery.labels[5]
    for control, label in zip(studio.controls, labels.tolist(), strict=True):
        assert (control.title in told) == (not math.isnan(label))
    assert told["glasses"] == ("yes" if labels[studio.schema.index("glasses")] else "no")
    assert answered(studio, 5, {"do": "filter", "text": "hat"})[0] == 5
    assert answered(studio, 5, {"do": "choose", "number": -1})[0] == 5


def test_an_image_is_answered_for_hovering(studio: Studio) -> None:
    image = ask(studio, "image", number=9)["image"]
    assert image["number"] == 9 and image["src"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (None, "nothing that the server knows"),
        ({"do": "rm"}, "nothing that the server knows"),
        ({"do": "choose", "number": 10**6}, "from 0 to"),
        ({"do": "choose", "number": "5"}, "whole number"),
        ({"do": "choose"}, "whole number"),
        ({"do": "image", "number": [1]}, "whole number"),
        ({"do": "map", "method": "umap"}, "pca or tsne"),
        ({"do": "map", "attribute": "glases"}, "did you mean 'glasses'"),
        ({"do": "map", "attribute": 3}, "attribute"),
        ({"do": "map", "method": ["pca"]}, "pca or tsne"),
        ({"do": ["map"]}, "nothing that the server knows"),
    ],
)
def test_a_bad_request_is_a_sentence(studio: Studio, request_: Any, said: str) -> None:
    chosen, answer = answered(studio, 3, request_)
    assert chosen == 3 and said in answer["error"] and "\n" not in answer["error"]


def test_what_fails_on_the_server_is_logged_and_not_shown(
    studio: Studio, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(studio, "points", fail)
    _, answer = answered(studio, None, {"do": "map"})
    assert answer["error"] == FAILED and "a secret path" in caplog.text


def test_labels_are_said_in_words() -> None:
    assert in_words(Attribute("hat"), 0.0) == "no"
    assert in_words(Attribute("age", "continuous"), 0.25) == "0.25"
    assert in_words(Attribute("hair", "categorical", ("red", "blond")), 1.0) == "blond"


def test_the_tab_offers_every_attribute_as_a_colour(studio: Studio) -> None:
    import gradio as gr

    with gr.Blocks() as page:
        explore_tab(studio, edit_tab(studio))
    made = [block for block in page.blocks.values() if getattr(block, "elem_id", None) == "explore"]
    assert [one["name"] for one in made[0].props["attributes"]] == list(studio.schema.names)
