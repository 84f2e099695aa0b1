"""The Explore tab: the gallery's latents in the plane, coloured by an attribute, and the image behind every point.

The tab is one component, whose HTML, CSS and JavaScript lie beside this file; what it asks is answered by
`lcg.app.gallery_map`.
"""

from __future__ import annotations

import gradio as gr

from lcg.app.answers import Source
from lcg.app.edit_tab import EditTab, text
from lcg.app.gallery_map import answered
from lcg.app.shown import Answer
from lcg.app.studio import Studio


def explore_tab(studio: Studio, edit: EditTab) -> None:
    """Makes the tab."""
    chosen = gr.State(None)
    view = gr.HTML(
        None,
        html_template=text("explore.html"),
        css_template=text("explore.css"),
        js_on_load=text("elements.js", "explore.js"),
        apply_default_css=False,
        elem_id="explore",
        attributes=[{"name": control.name, "title": control.title} for control in studio.controls],
    )

    def ask(chosen: int | None, event: gr.EventData) -> tuple[int | None, Answer]:
        return answered(studio, chosen, event._data)

    def source(chosen: int | None) -> Source | None:
        return None if chosen is None else studio.from_gallery(chosen)

    view.submit(ask, chosen, [chosen, view], show_progress="hidden", trigger_mode="multiple", api_visibility="private")
    edit.opens(view.select, source, chosen)
