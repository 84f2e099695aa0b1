"""Editing: change what is asked, keep everything else. The contract of every editing method, and lcg's own editor."""

from lcg.editing.contract import Editor, EditRequest, EditResult, edit_sequence
from lcg.editing.guided import GuidedEditor

__all__ = ["EditRequest", "EditResult", "Editor", "GuidedEditor", "edit_sequence"]
