"""The pages of the site, as a hook of MkDocs: each is made from what stands elsewhere, and nothing is written twice.

    README.md                      the first page, and a how-to page for each of its sections
    CHANGELOG.md                   as it is
    experiments/*/*.ipynb          tutorials, as they were executed
    experiments/*/README.md        what was found out, with the commands that show it
    lcg/, configs/                 the reference: commands, formulas, configs, files, Python

Whatever is wrong, a link, an anchor, a reference, a docstring, is a warning here and ends a strict build.
"""

from __future__ import annotations

import json
import logging
import posixpath
import re
from pathlib import Path

import reference
from check import Site
from commands import commands_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from notebooks import notebook
from prose import CODE, Links, Section, between, sections

from lcg import cli

ON_THE_FIRST_PAGE = 3
"""Sections of the README: how to begin, and what it is about."""

log = logging.getLogger("mkdocs.hooks.lcg")
NAMED = re.compile(r"<code>(lcg(?:\.\w+)+)</code>")
ARXIV = re.compile(r"\barXiv:(\d{4}\.\d{4,5})\b")
UNTOUCHED = re.compile(r"<a\b.*?</a>|<pre\b.*?</pre>|<h[1-6]\b.*?</h[1-6]>|<autoref\b.*?</autoref>|<[^>]*>", re.S)


def on_startup(command: str, dirty: bool) -> None:
    """Lets warnings through: `--quiet` would drop them, and a build that is strict about nothing passes."""
    mkdocs = logging.getLogger("mkdocs")
    mkdocs.setLevel(min(mkdocs.getEffectiveLevel(), logging.WARNING))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds every page, and every file of the repository that one of them leads to; says in which order they come."""
    root = root_of(config)
    readme = list(sections((root / "README.md").read_text(encoding="utf-8"), ON_THE_FIRST_PAGE))
    papers = [*root.glob("CHANGELOG.md"), *sorted(root.glob("experiments/*/*.md"))]
    notebooks = sorted(root.glob("experiments/*/*.ipynb"))
    links = Links(places(root, [*papers, *notebooks]), anchors_of(readme), lambda path: (root / path).is_file(), set())

    texts: dict[str, str] = {}
    for section in readme:
        texts[section.uri] = links.rewrite(section.text, "README.md", section.uri)
    for path in papers:
        source = path.relative_to(root).as_posix()
        texts[source] = links.rewrite(path.read_text(encoding="utf-8"), source, source)
    for path in notebooks:
        source = path.relative_to(root).as_posix()
        text, pictures = notebook(json.loads(path.read_text(encoding="utf-8")), path.stem)
        texts[links.pages[source]] = links.rewrite(text, source, links.pages[source])
        for name, content in pictures.items():
            files.append(File.generated(config, posixpath.join(posixpath.dirname(source), name), content=content))
    made = reference_pages(root)
    texts |= made

    for uri, text in texts.items():
        files.append(File.generated(config, uri, content=listed(text)))
    for taken in sorted(links.taken):
        files.append(File.generated(config, taken, abs_src_path=str(root / taken)))
    config.nav = [
        {"Guide": [*(section.uri for section in readme), *(uri for uri in texts if uri == "CHANGELOG.md")]},
        *([{"Tutorials": [links.pages[path.relative_to(root).as_posix()] for path in notebooks]}] if notebooks else []),
        {"Reference": [uri for uri in made if not uri.startswith("reference/lcg")]},
        {"Python": [uri for uri in made if uri.startswith("reference/lcg")]},
        {"Experiments": [uri for uri in texts if uri.startswith("experiments/") and uri.endswith("/README.md")]},
    ]
    return files


def root_of(config: MkDocsConfig) -> Path:
    """The repository, of which this is configs/docs."""
    return Path(config.config_file_path).resolve().parents[2]


def places(root: Path, files: list[Path]) -> dict[str, str]:
    """Files of the repository that are pages, to these."""
    pages = {path.relative_to(root).as_posix(): path.relative_to(root).with_suffix(".md").as_posix() for path in files}
    configs = {
        path.relative_to(root).as_posix(): f"reference/configs.md#{reference.config_anchor(path)}"
        for path in (root / "configs").glob("*/*.*")
        if path.suffix in (".yaml", ".sbatch")
    }
    modules = {
        path.relative_to(root).as_posix(): f"reference/{package}.md#{module}"
        for package, names in reference.packages(root, command_modules())
        for module in names
        for path in [root / f"{module.replace('.', '/')}.py"]
    }
    return {**pages, **configs, **modules}


def anchors_of(readme: list[Section]) -> dict[str, str]:
    """Every heading of the README, by its name on GitHub, to the page that it is on now."""
    found = {}
    for section in readme:
        for position, (name, anchor) in enumerate(section.anchors.items()):
            found[name] = section.uri if position == 0 else f"{section.uri}#{anchor}"  # the page's own title
    return found


def command_modules() -> frozenset[str]:
    """The modules whose functions are commands, which have a page of their own."""
    return frozenset(job.target.partition(":")[0] for job in cli.JOBS.values())


def reference_pages(root: Path) -> dict[str, str]:
    """The pages that are made from the code, in their order."""
    pages = {
        "reference/commands.md": commands_page(),
        "reference/formulas.md": reference.formulas_page(root),
        "reference/configs.md": reference.configs_page(root),
        "reference/files.md": reference.formats_page(root),
    }
    for package, modules in reference.packages(root, command_modules()):
        pages[f"reference/{package}.md"] = reference.api_page(root, package, modules)
    return pages


def listed(text: str) -> str:
    """Markdown in which a list right below a paragraph is a list, as on GitHub; Python-Markdown wants a blank line."""
    item = re.compile(r"^((?![-*] |\d+\. |\s|\|)[^\n]+\n)(?=(?:[-*]|\d+\.) )", re.M)
    return between(CODE, text, lambda prose: item.sub(r"\1\n", prose))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Names of the package in code become links to the reference, numbers of preprints links to them."""

    def change(text: str) -> str:
        return ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv:\1</a>', text)

    named = between(
        re.compile(r"<a\b.*?</a>|<pre\b.*?</pre>|<h[1-6]\b.*?</h[1-6]>|<autoref\b.*?</autoref>", re.S),
        html,
        lambda text: NAMED.sub(r'<autoref identifier="\1" optional><code>\1</code></autoref>', text),
    )
    return between(UNTOUCHED, named, change)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Gives the theme's search, a dialog without a name, one that screen readers can say."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def on_post_build(config: MkDocsConfig) -> None:
    """Walks the site as it was written, and warns of everything in it that leads nowhere."""
    site = Site(Path(config.site_dir))
    for problem in site.problems():
        log.warning(problem)
    log.info("%d pages; %d links lead elsewhere, unchecked: see external.txt", len(site.pages), len(site.external))
    Path(config.site_dir, "external.txt").write_text("".join(f"{link}\n" for link in sorted(site.external)))
