"""Editing: change what is asked, keep everything else.

The contract of every editing method, lcg's own editor, sessions that can be undone and saved, and the way from images
to latents.
"""

from lcg.editing.contract import Editor, EditRequest, EditResult, edit_sequence
from lcg.editing.each import edit_each, may_share
from lcg.editing.guided import GuidedEditor
from lcg.editing.inversion import Inversion, invert, pixel_distance
from lcg.editing.session import EditSession, Step

__all__ = [
    "EditRequest",
    "EditResult",
    "EditSession",
    "Editor",
    "GuidedEditor",
    "Inversion",
    "Step",
    "edit_each",
    "edit_sequence",
    "invert",
    "may_share",
    "pixel_distance",
]
