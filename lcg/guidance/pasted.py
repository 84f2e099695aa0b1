"""Characters that formulas do not know, and what to do about them.

Most come with text that was pasted from a document: quotes and dashes of typography, signs of logic, forms of full
width, and characters that are not seen at all. Unicode says what each is, so that none need be listed.
"""

import unicodedata

__all__ = ["advice_on", "typed"]

SIGNS = {"MINUS SIGN": "-", "LOGICAL AND": "&", "LOGICAL OR": "|", "NOT SIGN": "~"}
CATEGORIES = {"Pd": "-", "Pi": '"', "Pf": '"'}  # dashes, opening and closing quotation marks
INVISIBLE = "Cf"

ADVICE = {
    '"': 'quote values by ", and names not at all',
    "'": 'quote values by ", and names not at all',
    "+": "leave it out, signs are for edits",
    "-": "write `~` for not",
    "!": "write `~` for not",
}


def typed(character: str) -> str:
    """What a keyboard has in the place of a character: `-` for a dash; the character itself if there is no telling."""
    folded = unicodedata.normalize("NFKC", character)
    if folded.isascii():
        return folded
    name, category = unicodedata.name(character, ""), unicodedata.category(character)
    return SIGNS.get(name) or CATEGORIES.get(category) or ('"' if "QUOTATION MARK" in name else character)


def advice_on(character: str) -> str:
    """What to do about a character that a formula cannot have; nothing if there is no telling."""
    if unicodedata.category(character) == INVISIBLE:
        return "it is not seen: type the formula rather than paste it"
    plain = typed(character)
    return ADVICE.get(plain) or (f"write `{plain}`" if plain != character else "")
