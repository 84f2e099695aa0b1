"""The Benchmarks tab: the reports of past runs.

The list is links into a frame, which are followed without a script: a report is asked for by its number, and shown
where no script of its own would run (`lcg.app.server`).
"""

from __future__ import annotations

from html import escape

import gradio as gr

from lcg.app.reports import ReportEntry, Reports

SHOWN = 6
"""Methods that are named; of more, the number is told."""
FRAME = (
    '<iframe class="report" name="report" title="The report" sandbox="" referrerpolicy="no-referrer" '
    'srcdoc="&lt;p style=&quot;font: 16px system-ui; color: #767676; text-align: center; margin-top: 4rem&quot;&gt;'
    'Choose a report.&lt;/p&gt;"></iframe>'
)


def benchmarks_tab(reports: Reports) -> None:
    """Makes the tab; its list is of the moment when the page is opened."""
    gr.HTML(lambda: listing(reports), apply_default_css=False, elem_id="benchmarks")


def listing(reports: Reports) -> str:
    """The reports as HTML."""
    entries = reports.entries()
    if not entries:
        return (
            '<div class="none"><p><strong>No reports yet.</strong></p>'
            f"<p>Reports below <code>{escape(str(reports.runs))}</code> are listed here. <code>make demo</code> "
            "trains, measures and reports on the avatars; of a benchmark of yours,</p>"
            "<pre>lcg bench --config configs/world/avatars.yaml --config configs/benchmark/demo.yaml\n"
            "lcg report runs/demo/bench</pre><p>writes one. Then reload this page.</p></div>"
        )
    items = "".join(map(_item, entries))
    return f'<nav aria-label="Reports"><ul class="reports">{items}</ul></nav>{FRAME}'


def _item(entry: ReportEntry) -> str:
    methods = ", ".join(entry.methods[:SHOWN]) + (
        f" and {len(entry.methods) - SHOWN} more" if len(entry.methods) > SHOWN else ""
    )
    size = f"{entry.bytes / 1e6:.1f} MB"
    return (
        f'<li><a href="reports/{entry.number}" target="report"><strong>{escape(entry.title)}</strong>'
        f"<span>{entry.created:%d %B %Y}, {escape(entry.folder)}, {size}</span>"
        f"<span>{escape(methods)}</span></a></li>"
    )
