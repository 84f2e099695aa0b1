"""One editor for everybody: requests that wait at the same time are answered in one evaluation of the networks.

A request that waits alone is answered as `Pipeline.session` answers it, bit by bit; among others it is the same but for
rounding (`lcg.editing.each`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lcg.app.recent import Recent
from lcg.app.turns import Turns
from lcg.editing import Editor, EditRequest, EditResult, GuidedEditor, edit_each, may_share

SOURCES = 128
"""Sources of which an editor remembers what it has computed, for all users together."""
SMALL = 16_000_000
"""Weights of prior and classifiers below which a single latent keeps one thread busy at most."""

Asked = tuple[GuidedEditor, Tensor, EditRequest]


class Together(Editor):
    """Edits single latents (1, *latent), of whom and from whatever thread.

    Args:
        make: a new editor, always with the same networks and settings.
        turns: in which it computes.
        patience: of who asks, in seconds.
    """

    strengths = GuidedEditor.strengths
    keeps_details = True

    def __init__(self, make: Callable[[], GuidedEditor], turns: Turns, patience: float) -> None:
        self.make, self.turns, self.patience = make, turns, patience
        self._editors: Recent[bytes, GuidedEditor] = Recent(SOURCES)
        networks = [net for net in (make().denoiser, make().classifier) if isinstance(net, torch.nn.Module)]
        small = sum(weights.numel() for net in networks for weights in net.parameters()) < SMALL
        self._threads = 1 if small else torch.get_num_threads()

    def edit(self, z_0: Tensor, request: EditRequest) -> EditResult:
        """See `Editor`. Raises as `GuidedEditor.edit`."""
        editor = self._editors.get(z_0.cpu().numpy().tobytes(), self.make)
        return EditResult(self.turns.share(self._edited, (editor, z_0, request), self.patience), request)

    def _edited(self, asked: list[Asked]) -> list[Tensor]:
        if len(asked) > 1 and all(may_share(editor, request) for editor, _, request in asked):
            editors, sources, requests = zip(*asked, strict=True)
            return edit_each(editors, sources, requests)
        with threads(self._threads):
            return [editor.edit(z_0, request).z_0 for editor, z_0, request in asked]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Has torch use so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
