"""The English that `read` knows by itself: small words, groups of synonyms, opposites, and how words inflect.

Words are compared by their stems: "smiles", "smiling" and "smile" are one word, and so are "haired" and "hair". Nothing
here speaks of a schema; `lcg.guidance.phrases.lexicon` joins the two.
"""

import re
from dataclasses import dataclass

SPELLINGS = {
    "grey": "gray",
    "colour": "color",
    "moustach": "mustach",
    "five": "5",
    "tee": "t",
    "eyed": "eye",
    "nosed": "nose",
    "faced": "face",
    "aged": "age",
    "men": "man",
    "women": "woman",
    "children": "child",
    "ladies": "lady",
}
"""Other spellings, and forms that the rules of `stem` would miss; by the word itself or by its stem."""

WHOLE = ("earring", "than", "this", "his", "is", "has", "does", "sans", "lips", "eyes", "years")
"""Words that only look inflected, or whose rule would make another word of them; a plural s is dealt with."""

SYNONYMS = (
    ("glasses", "eyeglasses", "spectacles", "specs", "eyewear"),
    ("smile", "smiling", "grin", "grinning", "beaming"),
    ("beard", "bearded", "full beard"),
    ("hat", "headwear", "cap"),
    ("mustache", "moustached"),
    ("5 o clock shadow", "stubble", "stubbly"),
    ("bald", "bald head", "bald headed", "hairless"),
    ("bangs", "fringe"),
    ("blond hair", "blond", "fair hair", "blond head"),
    ("brown hair", "brunette"),
    ("red hair", "redhead", "redheaded", "ginger hair", "ginger"),
    ("gray hair", "silver hair", "gray head"),
    ("dark skin", "dark complexion"),
    ("pale skin", "pale complexion", "pale"),
    ("male", "man", "boy", "guy", "gentleman", "he", "his", "him"),
    ("female", "woman", "girl", "lady", "she", "her"),
    ("young", "youthful", "youngster"),
    ("old", "elderly", "aged", "senior"),
    ("necktie", "tie"),
    ("lipstick", "painted lips"),
    ("mouth slightly open", "slightly open mouth"),
    ("bags under eyes", "eye bags", "baggy eyes"),
    ("big nose", "large nose"),
    ("big lips", "full lips", "large lips"),
    ("chubby", "plump"),
    ("blurry", "blurred", "out of focus"),
    ("hoodie", "hooded sweater"),
)
"""Phrases of a group mean the same, where the schema has one of them."""

OPPOSITES = (
    ("male", "female"),
    ("young", "old"),
    ("long hair", "short hair"),
    ("beard", "clean shaven"),
    ("dark skin", "light skin"),
)
"""A phrase and its contrary: what one means, the other denies, where the schema has only the one."""

KIND_WORDS = ("color", "style", "type", "kind", "shape")
"""Words of an attribute's name that people leave out: `hair_color` is said of hair."""

AND = ("and", "plus", "&")
OR = ("or", "|")
BUT = ("but", "although", "though", "yet", "however", ";")
NOT = ("no", "not", "n't", "never", "non", "cannot", "~")
WITHOUT = ("without", "lack", "minus", "sans")
WITH = ("with", "wear", "who", "whose", "which", "that", "has", "have", "had", "in")
STOP = (".", "!", "?")
ARTICLES = ("a", "an", "the", "some", "any", "their", "its")
PEOPLE = (
    *("person", "people", "someone", "somebody", "anyone", "individual", "human", "face", "portrait", "photo"),
    *("photograph", "picture", "image", "avatar", "character"),
)
"""Nouns that say nothing about an attribute."""
GENDERED = ("man", "woman", "boy", "girl", "guy", "lady", "gentleman", "male", "female")
COPULAS = ("is", "are", "was", "be", "being", "am", "do", "does", "did", "of", "there", "also", "=", ":")
"""Small words without a meaning of their own; `is` and its kin may stand inside a phrase: "hair is red"."""

INSIDE = (*COPULAS, "that", "which", "color")
"""What may stand between the words of a phrase."""

ABOVE = ("above", "over", "more than", "greater than", "higher than", "larger than", "at least", "from", "> =", ">")
BELOW = ("below", "under", "less than", "lower than", "smaller than", "at most", "up to", "< =", "<")
COMPARATIVES = {
    "older": ("age", True),
    "younger": ("age", False),
    "taller": ("height", True),
    "heavier": ("weight", True),
}
"""Comparatives with "than": the attribute they are said of, and whether they mean above."""
UNITS = ("years", "year", "old")


@dataclass(frozen=True)
class Word:
    """A word, a number or a sign of the text, with where it stands and its stem."""

    text: str
    start: int
    end: int
    stem: str


PATTERN = re.compile(
    r"(?P<number>(?:(?<![\w)])[+-])?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![^\W\d_]))"
    r"|(?P<digits>\d+)"
    r"|(?P<not>n['\u2019]t\b)"
    r"|(?P<upper>[A-Z]+(?![a-z])(?:(?=n['\u2019]t\b)|))"
    r"|(?P<word>(?:(?!n['\u2019]t\b)[^\W\d_])(?:(?!n['\u2019]t\b)(?![A-Z])[^\W\d_])*)"
    r"|(?P<sign>[^\s\w]|_)"
)
SILENT = ("-", "_", "'", "\u2019", "\u2018", '"', "\u201c", "\u201d", "\u2013")
"""Signs that only join or quote words."""


def split(text: str) -> tuple[Word, ...]:
    """The words of a text; names are taken apart, so that `hair_color`, `hairColor` and "hair-color" are two words."""
    found = []
    for match in PATTERN.finditer(text):
        if match[0] in SILENT:
            continue
        written = "n't" if match.lastgroup == "not" else match[0]
        found.append(Word(match[0], match.start(), match.end(), stem(written)))
    return tuple(found)


def stems(text: str) -> tuple[str, ...]:
    """The stems of a text's words."""
    return tuple(word.stem for word in split(text))


def stem(word: str) -> str:
    """A word without its inflection; stems are for comparing and need not be words."""
    word = word.casefold()
    word = SPELLINGS.get(word, word)
    if word in WHOLE or not word.isalpha():
        return "eye" if word == "eyes" else "lip" if word == "lips" else word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us")) and len(word) > 3:
        word = word[:-1]
    if word not in WHOLE:
        for ending in ("ing", "ed"):
            if word.endswith(ending) and len(word) - len(ending) >= 4:
                word = word[: -len(ending)]
                if word[-1] == word[-2] and word[-1] not in "sl":
                    word = word[:-1]
                break
    if word.endswith("e") and len(word) > 4:
        word = word[:-1]
    return SPELLINGS.get(word, word)
