"""The Generate tab: a formula, or controls that write it, and the images that satisfy it.

The tab is one component, whose HTML, CSS and JavaScript lie beside this file; what it is told, `lcg.app.draft` says.
What is typed is read by functions of the component, which wait for nobody; images are made in the queue and come part
by part. A user's last samples are kept in a `gr.State`, for "edit this one".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from lcg.app import draft
from lcg.app.answers import Generated, Source
from lcg.app.edit_tab import EditTab
from lcg.app.studio import MAX_SAMPLES, Studio

HERE = Path(__file__).parent
COUNT = 10
"""Images that are asked for when nobody says otherwise: two rows on a desktop."""


class GenerateTab:
    """What the tab has that others may be told of.

    Args:
        studio: of the page.

    Attributes:
        shown: state, the samples that a user sees, or None.
        view: the component.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        self.shown = gr.State(None)
        self.view = gr.HTML(
            None,
            html_template=_file("generate.html"),
            css_template=_file("generate.css"),
            js_on_load=_file("generate.js"),
            apply_default_css=False,
            elem_id="generate",
            server_functions=_questions(studio),
            controls=[draft.described(control) for control in studio.controls],
            examples=draft.examples(studio),
            count=COUNT,
            most=MAX_SAMPLES,
        )

        def generate(event: gr.EventData) -> Iterator[tuple[Generated | None, draft.Answer]]:
            yield from draft.images(studio, event._data)

        self.view.submit(
            generate,
            None,
            [self.shown, self.view],
            show_progress="hidden",
            concurrency_id="images",
            concurrency_limit=8,
        )

    def hands_to(self, edit: EditTab) -> None:
        """Lets "edit this one" open a sample in the editor."""
        chosen = gr.State(None)

        def choose(event: gr.EventData) -> Any:
            return event._data.get("number") if isinstance(event._data, dict) else None

        def source(shown: Generated | None, number: Any) -> Source | None:
            if shown is None or not isinstance(number, int):
                return None
            return self.studio.from_generated(shown, number)

        picked = self.view.select(choose, None, chosen, show_progress="hidden")
        edit.opens(picked.then, source, [self.shown, chosen])


def generate_tab(studio: Studio) -> GenerateTab:
    """Makes the tab."""
    return GenerateTab(studio)


def _questions(studio: Studio) -> list[Callable[[Any], draft.Answer]]:
    """What the component's script may ask at any time, by the functions' names."""

    def read(request: Any) -> draft.Answer:
        return draft.answered(draft.read, studio, request)

    def trust(request: Any) -> draft.Answer:
        return draft.answered(draft.trust, studio, request)

    def describe(request: Any) -> draft.Answer:
        return draft.answered(draft.describe, studio, request)

    def write(request: Any) -> draft.Answer:
        return draft.answered(draft.write, studio, request)

    return [read, trust, describe, write]


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
