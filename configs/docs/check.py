"""Does a site hold together? What its HTML points at, walked page by page, without a browser or a network.

python configs/docs/check.py runs/docs/site                says what is missing; exit code 1 if anything is
python configs/docs/check.py runs/docs/site --external     also asks for every link elsewhere: needs a network
"""

from __future__ import annotations

import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

TARGETS = {"a": "href", "link": "href", "img": "src", "script": "src", "source": "srcset", "iframe": "src"}
HTML = """
    a abbr article aside autoref b blockquote body br button circle code col colgroup dd del details div dl dt em
    figcaption figure footer form g h1 h2 h3 h4 h5 h6 head header hr html i iframe img input kbd label li link main
    mark meta nav noscript ol p path picture pre rect script section small source span strong style sub summary sup svg
    table tbody td tfoot th thead title tr ul
"""
ELEMENTS = frozenset(HTML.split())
"""What pages are made of. Anything else is text in angle brackets that should have been code, and is not seen."""

FETCHED = ("link", "img", "script", "source", "iframe")
"""Elements whose target a browser fetches by itself."""


@dataclass
class Document(HTMLParser):
    """What a page points at, and the places in it that others may point at.

    Args:
        text: its HTML.
    """

    text: str
    anchors: set[str] = field(default_factory=set)
    targets: list[tuple[str, str]] = field(default_factory=list)
    pictures_without_words: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        target = values.get(TARGETS.get(tag, ""))
        if target is not None and values.get("rel") != "canonical":
            self.targets.append((tag, target))
        if tag not in ELEMENTS:
            self.unknown.append(tag)
        if tag == "img" and not values.get("alt"):
            self.pictures_without_words.append(values.get("src", ""))


@dataclass
class Site:
    """A built site.

    Args:
        folder: where it is.
    """

    folder: Path

    @cached_property
    def pages(self) -> dict[Path, Document]:
        """Every page of it."""
        return {path: Document(path.read_text(encoding="utf-8")) for path in sorted(self.folder.rglob("*.html"))}

    @cached_property
    def external(self) -> set[str]:
        """Links to other places, which nothing fetches before somebody follows them."""
        links = (target for page in self.pages.values() for tag, target in page.targets if tag not in FETCHED)
        return {link for link in links if urlsplit(link).scheme in ("http", "https") or link.startswith("//")}

    def problems(self) -> Iterator[str]:
        """A sentence for everything that is missing, or would be fetched from elsewhere."""
        for path, page in self.pages.items():
            name = path.relative_to(self.folder).as_posix()
            for picture in page.pictures_without_words:
                yield f"{name}: the picture {picture[:80]} has no alternative text"
            for tag in dict.fromkeys(page.unknown):
                yield f"{name}: <{tag}> is no HTML; put what stands there into backquotes"
            for tag, target in dict.fromkeys(page.targets):
                problem = self.problem(path, tag, target)
                if problem:
                    yield f"{name}: {problem}"

    def problem(self, path: Path, tag: str, target: str) -> str | None:
        """What is wrong with one link of a page, if anything."""
        parts = urlsplit(target)
        if parts.scheme in ("data", "mailto", "javascript"):
            return None
        if parts.scheme or parts.netloc:
            return f"fetches {target} from elsewhere" if tag in FETCHED else None
        if path.name == "404.html":  # it stands for any address, so its links begin at the site's
            found = self.folder / unquote(parts.path).lstrip("/")
        else:
            found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        found = found / "index.html" if found.is_dir() else found
        if not found.is_file():
            return f"{target} does not exist"
        if parts.fragment and found in self.pages and unquote(parts.fragment) not in self.pages[found].anchors:
            return f"{target} has no such anchor"
        return None


def unreachable(link: str, seconds: float = 20) -> str | None:
    """What is wrong with a link that leads elsewhere, if anything; asking takes a network."""
    asked = urllib.request.Request(link, headers={"User-Agent": "Mozilla/5.0 (lcg, a check of links)"})
    try:
        with urllib.request.urlopen(asked, timeout=seconds):
            return None
    except (OSError, ValueError) as error:
        return f"{link}: {error}"


def main(arguments: list[str]) -> int:
    """Checks the site in the folder that is named first."""
    site = Site(Path(arguments[0]))
    found = list(site.problems())
    if "--external" in arguments:
        found += filter(None, map(unreachable, sorted(site.external)))
    print("\n".join([*found, f"{len(site.pages)} pages, {len(site.external)} links elsewhere, {len(found)} problems"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
