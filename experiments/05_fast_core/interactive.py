"""How long one waits for an edit: one image, four attributes, the demo's networks.

    python experiments/05_fast_core/interactive.py

Wall-clock time from a changed request to the new image, 50 evaluations and the generator included. The first edit of a
source inverts it, too.
"""

import statistics
import time

import torch

import lcg
from lcg.editing import EditRequest
from lcg.guidance import parse_edit

EDITS = ("+glasses", "+smile", "+hat", "-beard")
REPEATS = 21


def main() -> None:
    """Prints medians in milliseconds."""
    pipeline = lcg.load()
    request = EditRequest(tuple(parse_edit(edit, pipeline.schema) for edit in EDITS))
    sources = pipeline.sample(range(REPEATS + 1)).split(1)
    editor, first, again = pipeline.editor(), [], []
    for z_0 in sources:
        for times, strength in ((first, 0.9), (again, 0.8)):  # a new source, then the slider moved
            started = time.perf_counter()
            pipeline.decode(editor.edit(z_0, EditRequest(request.edits, strength=strength)).z_0)
            times.append(1e3 * (time.perf_counter() - started))
    for name, times in (("first edit of a source", first), ("each further one", again)):
        print(f"{name}: {statistics.median(times[1:]):.0f} ms, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
