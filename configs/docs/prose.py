"""One text for GitHub and for the site: Markdown divided into pages, its links taken along.

On GitHub a link is a path in the repository, perhaps with a heading of that file. On the site the sections of the
README are pages of their own, so `README.md#edit`, or `#edit` in the README itself, becomes `edit.md`. Everything else
keeps its path: a file that is no page is copied to where it was.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from pymdownx.slugs import slugify

slug = slugify(case="lower")
CODE = re.compile(
    r"^ *(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^ *(?P=fence) *$|(?P<tick>`+)(?!`).+?(?<!`)(?P=tick)(?!`)", re.M | re.S
)
FENCED = re.compile(r"^ *(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^ *(?P=fence) *$\n?", re.M | re.S)
HEADING = re.compile(r"^(?P<marks>#{1,6}) +(?P<title>.+?) *#* *$", re.M)
LINK = re.compile(r"""(?P<before>\]\(|^\[[^\]^]+\]: +|\b(?:src|href|srcset)=")(?P<target>[^)\s"]+)""", re.M)


def between(pattern: re.Pattern[str], text: str, change: Callable[[str], str]) -> str:
    """The text with everything changed that does not match, such as what is not code."""
    done, position = [], 0
    for found in pattern.finditer(text):
        done += [change(text[position : found.start()]), found[0]]
        position = found.end()
    return "".join([*done, change(text[position:])])


def plain(title: str) -> str:
    """A heading without its markup, as its anchor is made of."""
    return re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")


@dataclass(frozen=True)
class Section:
    """A page of the README.

    Args:
        uri: the page, such as `edit.md`; `index.md` of what stands before the first section.
        text: its Markdown, headings one level up.
        anchors: of its headings, by their names on GitHub, where a second heading of a name has `-1` behind it.
    """

    uri: str
    text: str
    anchors: Mapping[str, str]


def sections(text: str, first: int = 0) -> Iterator[Section]:
    """The pages of a README: what stands before the first heading of level 2, then a page for each of these.

    Args:
        text: the README.
        first: how many sections stay on the first page.
    """
    blank = FENCED.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)  # a comment in a shell block is no heading
    headings = list(HEADING.finditer(blank))
    starts = [0, *[found.start() for found in headings if found["marks"] == "##"][first:], len(text)]
    everywhere: dict[str, int] = {}
    for start, end in pairwise(starts):
        anchors: dict[str, str] = {}
        here: dict[str, int] = {}
        inside = [found for found in headings if start <= found.start() < end]
        for found in inside:
            name = slug(plain(found["title"]), "-")
            anchors[numbered(name, everywhere, "-")] = numbered(name, here, "_")
        uri = f"{next(iter(anchors.values()), 'section')}.md" if start else "index.md"
        marks = [found.start() for found in inside if start]
        yield Section(uri, "".join(c for i, c in enumerate(text[start:end], start) if i not in marks), anchors)


def numbered(name: str, seen: dict[str, int], mark: str) -> str:
    """The anchor of one more heading of this name: GitHub writes `-1` behind the second one, Python-Markdown `_1`."""
    seen[name] = seen.get(name, -1) + 1
    return f"{name}{mark}{seen[name]}" if seen[name] else name


@dataclass(frozen=True)
class Links:
    """Where the targets of links have gone.

    Args:
        pages: files of the repository that are pages, to the pages.
        anchors: headings of README.md, by their names on GitHub, to page or page#anchor.
        exists: whether the repository has a file of this path.
        taken: every file that a link or a picture led to and that is no page; it has to be copied.
    """

    pages: Mapping[str, str]
    anchors: Mapping[str, str]
    exists: Callable[[str], bool]
    taken: set[str]

    def rewrite(self, text: str, source: str, uri: str) -> str:
        """The Markdown of the file `source` with its links as they must be on the page `uri`."""

        def change(prose: str) -> str:
            return LINK.sub(lambda link: link["before"] + self.target(link["target"], source, uri), prose)

        return between(CODE, text, change)

    def target(self, target: str, source: str, uri: str) -> str:
        """One link; as it is where it leads out of the repository or nowhere, which the build then tells."""
        if re.match(r"\w+:|//", target):
            return target
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path)) if path else source
        if path == "README.md":
            found = self.anchors.get(anchor) if anchor else "index.md"
            return target if found is None else relative(found, uri)
        for candidate in (path, posixpath.join(path, "README.md")):
            if candidate in self.pages:
                page = self.pages[candidate]
                return f"#{anchor}" if page == uri and anchor else relative(page, uri) + (anchor and f"#{anchor}")
        if self.exists(path):
            self.taken.add(path)
            return relative(path, uri)
        return target


def relative(target: str, uri: str) -> str:
    """The way from a page to another file of the site."""
    path, mark, anchor = target.partition("#")
    return posixpath.relpath(path, posixpath.dirname(uri) or ".") + mark + anchor
