"""Editing: change what is asked, keep everything else. The contract that every editing method meets, and lcg's own editor."""

from lcg.editing.contract import Editor, EditRequest, EditResult, edit_sequence
from lcg.editing.guided import GuidedEditor

__all__ = ["EditRequest", "EditResult", "Editor", "GuidedEditor", "edit_sequence"]
