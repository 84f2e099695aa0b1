"""The page: its frame, and the tabs in it, each in the file of its name.

A user's work lives in the state of their own browser session (`gr.State`) and in the page; the studio, which all users
share, knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape

import gradio as gr

from lcg.app.benchmarks_tab import benchmarks_tab
from lcg.app.edit_tab import edit_tab
from lcg.app.explore_tab import explore_tab
from lcg.app.generate_tab import generate_tab
from lcg.app.reports import Reports
from lcg.app.studio import Studio

FORGOTTEN = 3600
"""Seconds after which the state of a page that was closed is dropped."""
AT_ONCE = 24
"""Requests of one kind that the studio is given; it decides who is served first."""
WAITING = 256
"""Requests that may wait; more are told that the server is busy."""


def interface(studio: Studio, reports: Reports) -> gr.Blocks:
    """The page over a model.

    Args:
        studio: everything that the page does.
        reports: of past benchmarks.
    """
    with gr.Blocks(title="lcg", analytics_enabled=False, fill_width=True, delete_cache=(60, FORGOTTEN)) as page:
        gr.HTML(masthead(studio), apply_default_css=False)
        with gr.Tabs(elem_id="tabs"):
            with tab("Generate"):
                generate = generate_tab(studio)
            with tab("Edit"):
                edit = edit_tab(studio)
            with tab("Explore"):
                explore_tab(studio, edit)
            with tab("Benchmarks"):
                benchmarks_tab(reports)
        generate.hands_to(edit)
    page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE, api_open=False)
    return page


@contextmanager
def tab(title: str) -> Iterator[None]:
    """A tab, its name in the address, and its title for those who hear the page."""
    with gr.Tab(title, id=title.lower()):
        gr.HTML(f'<h2 class="visually-hidden">{title}</h2>', apply_default_css=False, elem_classes="heading")
        yield


def masthead(studio: Studio) -> str:
    """The page's title, and what model it is about."""
    height, width = studio.image_size
    about = f"{len(studio.schema)} attributes, images of {width} x {height} pixels, all computed on this machine"
    return (
        '<header class="masthead"><h1>Latent Classifier Guidance</h1>'
        f"<p>Model <strong>{escape(studio.name)}</strong>: {about}</p></header>"
    )
