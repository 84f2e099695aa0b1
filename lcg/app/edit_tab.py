"""The Edit tab: a source, what is asked of it, and how it looks then.

The tab is one component, whose HTML, CSS and JavaScript lie beside this file: the browser sends a request at a time and
shows the answer (`lcg.app.desk`). What belongs to a user is the desk in a `gr.State`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.base import Component
from gradio.context import Context

from lcg.app.answers import Source
from lcg.app.desk import Desk, answered, opened
from lcg.app.shown import Answer
from lcg.app.studio import Studio

HERE = Path(__file__).parent
TAB = "edit"
"""Of the tab, as the frame calls it."""


@dataclass(frozen=True)
class EditTab:
    """What another tab needs in order to hand something over to the editor.

    Attributes:
        studio: of the page.
        tabs: that the editor's is one of, None if it stands alone.
        desk: of the user: a source and the work on it.
        view: what the browser shows.
    """

    studio: Studio
    tabs: gr.Tabs | None
    desk: gr.State
    view: gr.HTML

    def opens(
        self,
        listener: Callable[..., Any],
        source: Callable[..., Source | None],
        inputs: Component | list[Component] | None = None,
    ) -> None:
        """Loads what `source(*inputs)` gives into the editor when the event comes, and shows the tab; None is nothing.

            edit.opens(button.click, lambda shown, number: studio.from_generated(shown, number), [shown, number])

        Args:
            listener: of an event, such as `button.click`.
            source: of the values of `inputs`; what it refuses is shown by Gradio's own message.
            inputs: components.
        """

        def load(*values: Any) -> tuple[Any, ...]:
            shown = [] if self.tabs is None else [gr.Tabs(selected=TAB)]
            try:
                chosen = source(*values)
            except ValueError as error:
                raise gr.Error(str(error)) from error
            if chosen is None:
                return gr.skip(), gr.skip(), *(gr.skip() for _ in shown)
            desk, answer = opened(self.studio, chosen)
            return desk, {**answer, "ticket": None, "opened": time.time_ns()}, *shown

        shown = [] if self.tabs is None else [self.tabs]
        listener(load, inputs, [self.desk, self.view, *shown], show_progress="hidden", api_visibility="private")


def edit_tab(studio: Studio) -> EditTab:
    """Makes the tab."""
    desk = gr.State(None)
    view = gr.HTML(
        None,
        html_template=text("edit.html"),
        css_template=text("edit.css"),
        js_on_load=text("elements.js", "controls.js", "edit.js"),
        apply_default_css=False,
        elem_id="edit",
        schema=_schema(studio),
    )

    def act(desk: Desk | None, event: gr.EventData) -> tuple[Desk | None, Answer]:
        return answered(studio, desk, event._data)

    # The page sends one request at a time; Gradio's `always_last` would send the data of an older one again.
    view.submit(act, desk, [desk, view], show_progress="hidden", trigger_mode="multiple", api_visibility="private")
    tabs = Context.block.parent if isinstance(Context.block, gr.Tab) else None
    return EditTab(studio, tabs if isinstance(tabs, gr.Tabs) else None, desk, view)


def text(*names: str) -> str:
    """The files of these names beside this one, one after another."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in names)


def _schema(studio: Studio) -> list[dict[str, Any]]:
    """The controls as the page makes them."""
    return [
        {
            "name": control.name,
            "title": control.title,
            "kind": control.kind,
            "values": list(control.values),
            "ordered": control.ordered,
            "range": [control.low, control.high],
            "when": control.applies_if,
            "applies_if": dict(attribute.applies_if),
            "parents": [*attribute.detail_of, *attribute.applies_if],
        }
        for control, attribute in zip(studio.controls, studio.schema, strict=True)
    ]
