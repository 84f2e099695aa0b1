"""The documentation site: its pages say what README, code and notebooks say, and all that they point at is there."""

from __future__ import annotations

import ast
import base64
import http.server
import inspect
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

import lcg
from lcg import cli

pytest.importorskip("mkdocs", reason="needs MkDocs: pip install -e '.[docs]'")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "configs" / "docs"
sys.path.insert(0, str(DOCS))  # the hook's modules import each other, as they do under MkDocs

import check  # noqa: E402
import commands  # noqa: E402
import notebooks  # noqa: E402
import prose  # noqa: E402
import reference  # noqa: E402

README = """# Name

Top, see [the second](#second-one).

## First

```bash
# a comment, no heading
```

### Same

## Second `one`

Text.

### Same

## Third
"""


# --- one text, two places ---------------------------------------------------------------------------------------------


def test_a_readme_becomes_a_page_for_each_section() -> None:
    pages = list(prose.sections(README))
    assert [page.uri for page in pages] == ["index.md", "first.md", "second-one.md", "third.md"]
    assert pages[1].text == "# First\n\n```bash\n# a comment, no heading\n```\n\n## Same\n\n"
    assert pages[2].text.startswith("# Second `one`\n")
    assert [dict(page.anchors) for page in pages[1:3]] == [
        {"first": "first", "same": "same"},
        {"second-one": "second-one", "same-1": "same"},  # the second of its name on GitHub, the first on its page
    ]


def test_the_first_sections_may_stay_on_the_first_page() -> None:
    pages = list(prose.sections(README, first=1))
    assert [page.uri for page in pages] == ["index.md", "second-one.md", "third.md"]
    assert pages[0].text == README[: README.index("## Second")]
    assert "".join(page.text.replace("# ", "#") for page in pages).count("Same") == 2


def links() -> prose.Links:
    return prose.Links(
        pages={"experiments/01/README.md": "experiments/01/README.md", "configs/a.yaml": "reference/configs.md#a-yaml"},
        anchors={"edit": "edit.md", "how-far": "edit.md#how-far"},
        exists=lambda path: path in ("experiments/01/figure.png", "LICENSE"),
        taken=set(),
    )


@pytest.mark.parametrize(
    ("source", "uri", "written", "becomes"),
    [
        ("README.md", "index.md", "[a](#edit)", "[a](edit.md)"),
        ("README.md", "edit.md", "[a](#how-far)", "[a](edit.md#how-far)"),
        ("README.md", "index.md", "[a](experiments/01/README.md)", "[a](experiments/01/README.md)"),
        ("README.md", "index.md", "[a](experiments/01)", "[a](experiments/01/README.md)"),
        ("README.md", "index.md", "[a](configs/a.yaml)", "[a](reference/configs.md#a-yaml)"),
        ("experiments/01/README.md", "experiments/01/README.md", "[a](../../README.md#edit)", "[a](../../edit.md)"),
        ("experiments/01/README.md", "experiments/01/README.md", "[a](../../README.md)", "[a](../../index.md)"),
        ("experiments/01/README.md", "experiments/01/README.md", "[a](#claim)", "[a](#claim)"),
        ("README.md", "index.md", '<img src="experiments/01/figure.png" alt="x">', None),
        ("README.md", "index.md", "[a](https://example.org/#edit)", None),
        ("README.md", "index.md", "`[a](#edit)`", None),
        ("README.md", "index.md", "```text\n[a](#edit)\n```", None),
        ("README.md", "index.md", "[a](nowhere.md) [b](#nothing)", None),  # left for the build to find
    ],
)
def test_links_are_taken_along(source: str, uri: str, written: str, becomes: str | None) -> None:
    assert links().rewrite(written, source, uri) == (written if becomes is None else becomes)


def test_files_that_are_led_to_are_copied() -> None:
    found = links()
    found.rewrite("![a](figure.png) [b](../../LICENSE) [c](missing.png) `[d](x)`", *["experiments/01/README.md"] * 2)
    assert found.taken == {"experiments/01/figure.png", "LICENSE"}


# --- notebooks --------------------------------------------------------------------------------------------------------


def cell(source: str, *outputs: dict[str, Any], count: int | None = 1) -> dict[str, Any]:
    return {"cell_type": "code", "source": source, "outputs": list(outputs), "execution_count": count}


def test_a_notebook_is_shown_as_it_was_executed() -> None:
    picture = base64.b64encode(b"png").decode()
    content = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Title\n", "text"]},
            cell("", count=None),
            cell("print('a')", {"output_type": "stream", "name": "stdout", "text": ["\x1b[31ma ```\x1b[0m\n"]}),
            cell("x", {"output_type": "execute_result", "data": {"text/plain": "1", "text/html": "<b>1</b>"}}),
            cell("y", {"output_type": "display_data", "data": {"image/png": picture, "text/plain": "<Image>"}}),
            cell("z", {"output_type": "execute_result", "data": {"text/plain": "2"}}),
        ]
    }
    text, pictures = notebooks.notebook(content, "tour")
    assert text.startswith("# Title\ntext\n\n```python\nprint('a')\n```\n")
    assert "````text\na ```\n````" in text and "<div><b>1</b></div>" in text and "```text\n2\n```" in text
    assert "![What `y` shows](tour-5-1.png)" in text and pictures == {"tour-5-1.png": b"png"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (cell("x", count=None), "cell 1 of tour was not executed; execute the notebook and save it"),
        (cell("x", {"output_type": "error", "ename": "KeyError"}), "tour-1-1 ended in KeyError; mend and execute"),
    ],
)
def test_a_notebook_that_was_not_executed_well_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        notebooks.notebook({"cells": [bad]}, "tour")


# --- the reference ----------------------------------------------------------------------------------------------------


def documented(page: str, command: str) -> set[str]:
    """The options that the page has for a command, without dashes, those of a mapping by the mapping's name."""
    section = page.partition(f"{{ #{commands.anchor(command)} }}")[2].partition("\n## ")[0]
    return {name.strip("-").lower().partition(".")[0] for name in re.findall(r"\*\*`([^`]+)`\*\*", section)}


@pytest.fixture(scope="module")
def page() -> str:
    return commands.commands_page()


@pytest.mark.parametrize("name", cli.JOBS)
def test_every_option_of_a_command_is_in_the_reference(name: str, page: str) -> None:
    parameters = inspect.signature(cli.JOBS[name].load()).parameters
    assert documented(page, name) == {parameter.lower() for parameter in parameters}
    assert f"[`lcg {name}`](#{commands.anchor(name)}) | {commands.escaped(cli.JOBS[name].summary)} |" in page


@pytest.mark.parametrize("name", cli.TRAINER_COMMANDS)
def test_every_trainer_command_is_in_the_reference(name: str, page: str) -> None:
    assert {"model", "data", "trainer", "ckpt_path", "out"} <= documented(page, name)


def test_an_option_is_shown_with_its_type_and_its_default(page: str) -> None:
    section = page.partition("{ #lcg-generate }")[2].partition("\n## ")[0]
    assert "| **`--num`**<br>int, `64` by default | how many samples. |" in section
    assert "**`--sampling.sampler`**<br>ddpm, ddim, heun, dpm++2m, unipc, consistency, `dpm++2m` by default" in section
    assert "**`--formula`**<br>str or null |" in section
    assert "**`--latents`**<br>list[str], required |" in page


def test_a_json_schema_becomes_a_row_for_each_field() -> None:
    schema = {
        "properties": {
            "kind": {"enum": ["a", "b"], "description": "of | it"},
            "files": {"type": "array", "items": {"$ref": "#/$defs/file"}},
        },
        "required": ["kind"],
        "$defs": {"file": {"type": "object", "required": ["bytes"], "properties": {"bytes": {"type": "integer"}}}},
    }
    assert list(reference.fields(schema, schema)) == [
        '| `kind` | `"a", "b"` | of \\| it |',
        "| `files` (optional) | `array of object` |  |",
        "| `files[].bytes` | `integer` |  |",
    ]


def test_every_public_class_and_function_says_what_it_is() -> None:
    mute: list[str] = []
    for path in sorted((ROOT / "lcg").rglob("*.py")):
        names = set(reference.public_names(path))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name not in names:
                continue
            is_overload = any("overload" in ast.unparse(decorator) for decorator in node.decorator_list)
            if not ast.get_docstring(node) and not is_overload:
                mute.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not mute


def test_every_package_has_a_page_in_the_order_of_a_users_path() -> None:
    pages = dict(reference.packages(ROOT, frozenset({"lcg.commands"})))
    assert list(pages)[:4] == ["lcg", "lcg.pipeline", "lcg.results", "lcg.guidance"]
    assert pages["lcg"][0] == "lcg.schema" and pages["lcg.pipeline"][0] == "lcg.pipeline.pipeline"
    assert "lcg.commands" not in pages["lcg"] and not {name for name in pages if name.startswith("lcg.app")}
    known = {f"{path.parent.relative_to(ROOT)}".replace("/", ".") for path in (ROOT / "lcg").rglob("__init__.py")}
    assert set(pages) <= known
    assert set(reference.ORDER) <= known | {module for modules in pages.values() for module in modules}


# --- the checker ------------------------------------------------------------------------------------------------------


def test_the_checker_finds_what_is_wrong_with_a_site(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "index.html").write_text('<h1 id="top">x</h1><a href="../b.html#here">b</a><a href="#top">t</a>')
    (tmp_path / "b.html").write_text('<a name="here"></a><a href="a">a</a><a href="https://example.org/">e</a>')
    assert list(check.Site(tmp_path).problems()) == []
    assert check.Site(tmp_path).external == {"https://example.org/"}
    (tmp_path / "b.html").write_text(
        '<a href="a/index.html#nothing">1</a><a href="c.html">2</a><img src="d.png"><u^k>'
        '<link rel="stylesheet" href="https://example.org/font.css"><script src="//example.org/x.js"></script>'
    )
    assert list(check.Site(tmp_path).problems()) == [
        "a/index.html: ../b.html#here has no such anchor",
        "b.html: the picture d.png has no alternative text",
        "b.html: <u^k> is no HTML; put what stands there into backquotes",
        "b.html: a/index.html#nothing has no such anchor",
        "b.html: c.html does not exist",
        "b.html: d.png does not exist",
        "b.html: fetches https://example.org/font.css from elsewhere",
        "b.html: fetches //example.org/x.js from elsewhere",
    ]


def test_links_that_lead_elsewhere_are_asked_for_only_on_demand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        (tmp_path / "index.html").write_text(f'<a href="{address}/there">a</a><a href="{address}/gone">b</a>')
        assert check.main([str(tmp_path)]) == 0 and not Elsewhere.asked
        assert check.main([str(tmp_path), "--external"]) == 1
        server.shutdown()
    assert Elsewhere.asked == ["/gone", "/there"]
    assert f"{address}/gone: HTTP Error 404" in capsys.readouterr().out


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """Another site, which has one page."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


# --- the site ---------------------------------------------------------------------------------------------------------


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`make docs` of the repository at `root`, into another folder."""
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "-f",
        str(root / "configs/docs/mkdocs.yml"),
    ]
    return subprocess.run([*command, "-d", str(site)], capture_output=True, text=True, cwd=site.parent)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_nothing_on_the_site_leads_nowhere_or_elsewhere_by_itself(site: Path) -> None:
    built = check.Site(site)
    assert list(built.problems()) == []
    assert (site / "external.txt").read_text().split() == sorted(built.external)
    titles = re.findall(r"^## (.+)$", prose.between(prose.CODE, (ROOT / "README.md").read_text(), str), re.M)
    shown = " ".join(page.text for page in built.pages.values())
    assert all(prose.plain(title) in shown for title in titles)
    for path in ROOT.glob("experiments/*/README.md"):
        assert (site / path.relative_to(ROOT)).with_name("index.html").is_file()
    for path in ROOT.glob("experiments/*/*.ipynb"):
        assert (site / path.relative_to(ROOT)).with_suffix(".html").is_file()


@pytest.mark.slow
def test_every_public_name_has_a_place_in_the_reference(site: Path) -> None:
    anchors = {anchor for page in check.Site(site).pages.values() for anchor in page.anchors}
    modules = frozenset(job.target.partition(":")[0] for job in cli.JOBS.values())
    for package, names in reference.packages(ROOT, modules):
        for module in names:
            public = reference.public_names(ROOT / f"{module.replace('.', '/')}.py")
            assert {f"{module}.{name}" for name in public} <= anchors
        text = (site / "reference" / f"{package}.html").read_text()
        for name, _ in reference.exported(ROOT / package.replace(".", "/") / "__init__.py"):
            assert f"<code>{name}</code></a>" in text


def sources(folder: Path) -> Path:
    """A repository of little more than the documentation needs."""
    shutil.copytree(DOCS, folder / "configs" / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("guidance", "schema.py"):
        copy = shutil.copytree if (ROOT / "lcg" / name).is_dir() else shutil.copy
        (folder / "lcg").mkdir(exist_ok=True)
        copy(ROOT / "lcg" / name, folder / "lcg" / name)
    (folder / "lcg" / "__init__.py").write_text('"""A package."""\n')
    (folder / "configs" / "prior").mkdir()
    (folder / "configs" / "prior" / "small.yaml").write_text("# few steps\nseed: 1\n")
    (folder / "experiments" / "01").mkdir(parents=True)
    (folder / "experiments" / "01" / "README.md").write_text("# Question\n\nBack to [it](../../README.md#third).\n")
    (folder / "README.md").write_text(README + "\nSee [one](experiments/01), [a config](configs/prior/small.yaml).\n")
    return folder


WRONG = '''"""A module."""


def wrong(a: int) -> int:
    """See [nothing][lcg.such] of <one>.

    Args:
        b: not there.
    """
    return a
'''


@pytest.mark.slow
def test_a_small_repository_builds_and_with_mistakes_in_it_does_not(tmp_path: Path) -> None:
    root = sources(tmp_path / "right")
    built = build(root, tmp_path / "site")
    assert built.returncode == 0, built.stderr

    with (root / "README.md").open("a") as readme:
        readme.write("\n[a](missing.md) [b](#nothing) ![c](none.png) ![](LICENSE)\n")
    (root / "LICENSE").write_text("a")
    (root / "lcg" / "guidance" / "wrong.py").write_text(WRONG)
    built = build(root, tmp_path / "wrong")
    assert built.returncode != 0
    for complaint in (
        "'missing.md'",
        "'#nothing'",
        "'none.png'",
        "LICENSE has no alternative text",
        "Parameter 'b' does not appear",
        "'lcg.such'",
        "<one> is no HTML",
    ):
        assert complaint in built.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_the_site_is_read_and_searched_without_a_server(site: Path, browser: Any, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe: pip install -e '.[dev]'")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    requested: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda sent: requested.append(sent.url))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for name in ("index.html", "reference/commands.html", "reference/lcg.guidance.html", "reference/files.html"):
        page.goto((site / name).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].filter(i => !i.naturalWidth).length") == 0
        found = axe.Axe().run(page, options={"preload": False}).response["violations"]  # which would fetch files
        assert not [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
    magnifier = page.locator("label.md-header__button[for=__search]")
    if magnifier.is_visible():  # on a phone
        magnifier.click()
    page.locator(".md-search__input").click()
    page.keyboard.type("twisted")
    page.locator(".md-search-result__item", has_text="TwistedSMC").first.wait_for()
    assert not complaints
    assert all(url.startswith(("file:", "data:", "blob:", "about:")) for url in requested)


# --- beside the documentation -----------------------------------------------------------------------------------------


def test_the_citation_agrees_with_the_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert cited["title"] == lcg.__name__ and cited["version"] == lcg.__version__
    assert cited["license"] == "Apache-2.0" and cited["message"] and cited["authors"]
    (paper,) = cited["references"]
    assert paper["type"] == "conference-paper" and paper["title"] in " ".join((lcg.__doc__ or "").split())
    assert {"type": "other", "value": "arXiv:2304.12536"}.items() <= paper["identifiers"][0].items()
    assert all({"family-names", "given-names"} <= author.keys() for author in paper["authors"])


def test_the_changelog_ends_with_the_version_of_the_package() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, re.M)
    assert next(version for version in versions if version != "Unreleased") == lcg.__version__
    kinds = set(re.findall(r"^### (.+)$", text, re.M))
    assert kinds and kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
