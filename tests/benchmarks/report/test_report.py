"""The report: one file that loads nothing and leaves nothing out, and refuses what it cannot show truly."""

import base64
import csv
import html
import io
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lcg.benchmarks.report.job import report_job
from lcg.benchmarks.report.plots import COLOURS
from lcg.pictures import contact_sheet, strips

FORMULAS = ("beard & hat", "glasses & smile & ~(beard | hat)")
ZERO_SHOT = f"generate/{FORMULAS[1]}"
STEPS = ("edit/+glasses", "edit/+glasses-smile")
TRADE = "tradeoff/+glasses-smile"
STRENGTHS = {"lcg": ("0.5", "1", "10"), "arithmetic": ("0.25", "1.5")}
NOTES = [
    "The generator has seen every combination, without labels.",
    "The judge shares neither data nor weights with the classifiers.",
]


def bench(path: Path) -> Path:
    """A small benchmark: two formulas, a sequence of two edits, a trade-off, samples, reconstruction; two seeds."""
    directory = path / "demo" / "bench"
    (directory / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows: list[tuple[Any, ...]] = []
    for method in ("lcg", "arithmetic", "real"):
        for seed in (0, 1):
            for task, metrics in (
                *(
                    (f"generate/{f}", ("joint_accuracy", "sharp", "frechet_distance", "marginal/beard"))
                    for f in FORMULAS
                ),
                *((step, ("edit_success", "kept", "kept_fine", "l1_outside")) for step in STEPS if method != "real"),
            ):
                for metric in metrics:
                    value = rng.uniform(10, 99) if metric == "frechet_distance" else rng.uniform()
                    rows.append((method, task, metric, value, "" if value > 1 else 0.0123, 64, seed))
    rows += [
        ("lcg", "unconditional", "frechet_distance", 48.25, "", 512, ""),
        ("real", "unconditional", "frechet_distance", 8.7, "", 512, ""),
    ]
    rows += [
        ("real", "reconstruction", "accuracy/glasses", 0.9987, 0.001, 512, ""),
        ("lcg", "reconstruction", "psnr", 41.2, 0.1, 512, ""),
    ]
    for method, strengths in STRENGTHS.items():
        metrics = [f"{axis}/{s}" for s in strengths for axis in ("joint_accuracy", "kept_fine")]
        metrics += ["pareto_area"] if method == "lcg" else ["pareto_area", "pareto_behind"]
        rows += [(method, TRADE, metric, rng.uniform(), 0.0123, 64, seed) for metric in metrics for seed in (0, 1)]
    rows += [("lcg", "another task", "another_metric", 0.3217, "", "", "")]
    with open(directory / "results.csv", "w", newline="") as file:
        csv.writer(file).writerows([("method", "task", "metric", "value", "stderr", "n", "seed"), *rows])

    pictures = []
    for i, (kind, method, task) in enumerate(
        [
            ("unconditional", "lcg", "unconditional"),
            ("formula", "arithmetic", ZERO_SHOT),
            ("formula", "lcg", ZERO_SHOT),
            ("edit", "lcg", STEPS[-1]),
            ("reconstruction", "real", "reconstruction"),
            ("comparison", "all", STEPS[-1]),
        ]
    ):
        images = rng.integers(0, 256, (2, 2, 8, 8, 3), dtype=np.uint8)
        picture = (
            strips(images, ["source", "+glasses"]) if kind in ("edit", "comparison") else contact_sheet(images[0], 2)
        )
        picture.save(directory / "pictures" / f"{i}.png")
        pictures.append(
            {"file": f"pictures/{i}.png", "kind": kind, "method": method, "task": task}
            | {"title": f"Title {i} <b>", "caption": f"Caption {i} & more"}
        )
    write(directory / "pictures.json", pictures)
    provenance = {
        "title": "A <test> benchmark",
        "created": "2025-01-02 03:04 UTC",
        "lcg": "0.1.0",
        "versions": {"torch": "2.13.0"},
        "config": {"steps": 50, "sampler": {"class_path": "lcg.diffusion.DDIM"}},
        "commands": ["make demo", "lcg bench --config configs/benchmark/demo.yaml"],
        "notes": NOTES,
        "zero_shot": [ZERO_SHOT],
        "judge": {"sha256": "abc123", "accuracy": 0.9987},
        "seconds": {"total": 754.3, "generate": {"lcg": 12.5}, "edit": 7300},
    }
    write(directory / "provenance.json", provenance)
    return directory


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def change(path: Path, **changes: object) -> None:
    write(path, json.loads(path.read_text()) | changes)


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text of every table row."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(directory: Path) -> str:
    report_job(str(directory))
    return (directory.parent / "report.html").read_text(encoding="utf-8")


def test_page_is_well_formed(page: str) -> None:
    parsed = Page(page)
    assert parsed.open == [] and page.startswith("<!doctype html>")
    ids = [a["id"] for _, a in parsed.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for attributes in parsed.all("a"):
        assert (attributes["href"] or "").removeprefix("#") in ids
    for _, attributes in parsed.elements:
        assert attributes.get("aria-labelledby") in {None, *ids}


def test_page_loads_nothing(page: str) -> None:
    parsed = Page(page)
    assert not {tag for tag, _ in parsed.elements} & {"script", "link", "iframe", "object", "embed", "video", "base"}
    assert all((image["src"] or "").startswith("data:image/png;base64,") for image in parsed.all("img"))
    assert not any("srcset" in attributes for _, attributes in parsed.elements)
    assert not re.search(r"url\(|@import|https?://", page)
    policy = next(m["content"] for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_picture_is_on_the_page_byte_for_byte_with_its_words(page: str, directory: Path) -> None:
    images = {image["src"]: image for image in Page(page).all("img")}
    listed = json.loads((directory / "pictures.json").read_text())
    assert len(images) == len(listed)
    for entry in listed:
        data = base64.b64encode((directory / entry["file"]).read_bytes()).decode()
        alt = images[f"data:image/png;base64,{data}"]["alt"] or ""
        assert entry["title"] in alt and entry["caption"] in alt
        assert html.escape(entry["caption"]) in page and html.escape(entry["title"]) in page
    order = [page.index(f'id="pictures-{kind}"') for kind in ("unconditional", "formula", "comparison", "edit")]
    assert order == sorted(order) and order[-1] < page.index('id="pictures-reconstruction"')
    assert page.index("pictures-reconstruction") < page.index('id="numbers"') < page.index('id="reproduce"')


def test_methods_stand_side_by_side_with_lcg_first(page: str) -> None:
    assert page.index("Caption 2") < page.index("Caption 1")


def test_a_picture_of_all_methods_says_so_and_scrolls(page: str) -> None:
    assert "All methods on the same sources" in page and "<b>all methods</b>" in page
    (sheet,) = (a for a in Page(page).all("div") if "all methods" in (a.get("aria-label") or ""))
    assert sheet["tabindex"] == "0" and sheet["role"] == "region"
    assert re.search(r"\.comparison \.sheet \{ overflow-x: auto", page)


def test_every_row_of_the_csv_is_on_the_page(page: str, directory: Path) -> None:
    (text,) = re.findall(r'<pre tabindex="0" aria-label="results.csv">([^<]*)</pre>', page)
    with open(directory / "results.csv", newline="") as file:
        assert list(csv.reader(io.StringIO(html.unescape(text)))) == list(csv.reader(file))


def test_every_estimate_is_in_a_table(page: str, directory: Path) -> None:
    with open(directory / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        if row["task"] != TRADE or "/" not in row["metric"]:  # the points of a trade-off are in its chart
            values.setdefault((row["method"], row["task"], row["metric"]), []).append(float(row["value"]))
    decimals = {"frechet_distance": 1, "l1_outside": 4, "psnr": 1}
    shown = re.findall(r'<span class="value">([^<]*)</span>', page[page.index('id="numbers"') :])
    expected = [f"{np.mean(v):.{decimals.get(metric, 3)}f}" for (_, _, metric), v in values.items()]
    assert sorted(shown) == sorted(expected)


def test_errors_over_seeds_are_the_larger_of_spread_and_sampling_error(page: str, directory: Path) -> None:
    with open(directory / "results.csv", newline="") as file:
        found = [r for r in csv.DictReader(file) if (r["method"], r["metric"]) == ("lcg", "sharp")]
    a, b = (float(r["value"]) for r in found if r["task"] == ZERO_SHOT)
    stderr = max(abs(a - b) / 2, 0.0123 / 2**0.5)
    assert f'{(a + b) / 2:.3f}</span> <span class="error">± {stderr:.3f}' in page


def test_every_point_of_a_trade_off_is_in_its_chart_in_the_order_of_strengths(page: str, directory: Path) -> None:
    with open(directory / "results.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["task"] == TRADE]
    expected = []
    for method in ("arithmetic", "lcg"):  # lcg above the others
        for strength in STRENGTHS[method]:
            a, k = (
                np.mean(
                    [float(r["value"]) for r in rows if (r["method"], r["metric"]) == (method, f"{axis}/{strength}")]
                )
                for axis in ("joint_accuracy", "kept_fine")
            )
            label = {"arithmetic": "latent arithmetic"}.get(method, method)
            expected.append(f"{label}, strength {strength}: joint accuracy {a:.3f}, kept, fine {k:.3f}")
    assert [html.unescape(title) for title in re.findall("<path[^>]*><title>([^<]*)</title>", page)] == expected
    section = page[page.index('id="trade-off"') : page.index('id="unconditional"')]
    assert section.count("<table>") == 1 and "by attribute" not in section.lower()
    assert page.index('id="edits"') < page.index('id="trade-off"') and "Shaded: the area that lcg dominates." in section


def test_points_that_lack_an_axis_are_left_out_and_strengths_must_be_numbers(tmp_path: Path) -> None:
    directory = bench(tmp_path)
    with open(directory / "results.csv", "a") as file:
        file.write(f"lcg,{TRADE},joint_accuracy/20,0.5,,,\n")
    report_job(str(directory))
    assert "strength 20" not in (directory.parent / "report.html").read_text()
    for strength in ("much", "nan"):
        with open(directory / "results.csv", "a") as file:
            file.write(f"lcg,{TRADE},joint_accuracy/{strength},0.5,,,\nlcg,{TRADE},kept_fine/{strength},0.5,,,\n")
        with pytest.raises(ValueError, match=r"a metric of tradeoff/.* must end in the strength, such as .*/0\.5, got"):
            report_job(str(directory))


def test_crowded_charts_show_lcg_and_the_best_and_say_so(tmp_path: Path, page: str) -> None:
    """Sixteen baselines, the later the better, but for the last, whose one step is the easy one."""
    directory = bench(tmp_path)
    rows: list[tuple[Any, ...]] = [("lcg", step, "edit_success", 0.01, 0.001, 64, 0) for step in STEPS]
    for i in range(16):
        rows += [(f"base{i:02}", step, "edit_success", 0.02 + 0.03 * i, 0.001, 64, 0) for step in STEPS[: 1 + (i < 15)]]
    with open(directory / "results.csv", "w", newline="") as file:
        csv.writer(file).writerows([("method", "task", "metric", "value", "stderr", "n", "seed"), *rows])
    change(directory / "provenance.json", zero_shot=[])
    write(directory / "pictures.json", [])
    report_job(str(directory))
    crowded = (directory.parent / "report.html").read_text()
    (legend,) = re.findall('<ul class="legend">(.*?)</ul>', crowded)
    assert re.findall("</svg>([^<]*)</li>", legend) == ["lcg", *(f"base{i}" for i in (10, 11, 12, 13, 14))]
    assert "A chart has room for 6 methods" in crowded and "A chart has room" not in page
    numbers = crowded[crowded.index('id="numbers"') :]
    assert all(numbers.count(f'<th scope="row">base{i:02}</th>') == 1 + (i < 15) for i in range(16))


def test_notes_stand_after_the_pictures_and_beside_every_claim(page: str) -> None:
    # all between pictures and numbers; the first, which says what was seen, wherever the formula is shown: in the first
    # look, at its pictures and at its numbers
    assert [page.count(note) for note in NOTES] == [4] + [1] * (len(NOTES) - 1)
    assert page.index('id="pictures"') < page.index('id="seen"') < page.index('id="numbers"')
    assert page.count(">zero-shot<") == 2  # beside the formula's name: at its pictures, and in the table


def test_a_picture_that_claims_zero_shot_brings_the_notes_too(tmp_path: Path) -> None:
    directory = bench(tmp_path)
    change(directory / "provenance.json", zero_shot=[])
    report_job(str(directory), str(tmp_path / "a.html"))
    entries = json.loads((directory / "pictures.json").read_text())
    entries[3]["caption"] = "Never seen together in training."
    write(directory / "pictures.json", entries)
    report_job(str(directory), str(tmp_path / "b.html"))
    # in the first look, at the task's two pictures (its edits, and all methods) and at its numbers
    assert [(tmp_path / f).read_text().count(NOTES[0]) for f in ("a.html", "b.html")] == [1, 1 + 1 + 2 + 1]


def test_page_tells_how_to_reproduce(page: str) -> None:
    text = Page(page).text
    for part in ("make demo", "torch", "2.13.0", "class_path: lcg.diffusion.DDIM", "sha256", "abc123"):
        assert part in text
    assert "12 min 34 s" in text and "12.5 s" in text and "2 h 1 min" in text
    assert "A <test> benchmark" in text and "<test>" not in page


def test_page_is_accessible(page: str) -> None:
    parsed = Page(page)
    assert parsed.all("html")[0]["lang"] == "en" and parsed.all("meta")[1]["name"] == "viewport"
    assert all(image["alt"] and image["width"] and image["height"] for image in parsed.all("img"))
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in parsed.all("svg"))
    assert all("scope" in a for a in parsed.all("th"))
    assert len(parsed.all("caption")) >= len(parsed.all("table")) - 1  # the raw rows have their summary
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))


def contrast(a: str, b: str) -> float:
    """WCAG 2.1 contrast of two colours #rgb or #rrggbb."""

    def luminance(color: str) -> float:
        digits = color[1:] if len(color) == 7 else "".join(2 * c for c in color[1:])
        channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_contrast_in_light_and_dark(page: str) -> None:
    themes = [
        dict(re.findall(r"--([\w]+): (#[0-9a-f]+);", block)) for block in re.findall(r":root \{(.*?)\}", page, re.S)
    ]
    assert len(themes) == 2
    for theme in themes:
        for ink in ("ink", "soft", "accent", *(f"s{i}" for i in range(COLOURS))):
            assert contrast(theme[ink], theme["page"]) >= 4.5, ink
        assert contrast(theme["ink"], theme["faint"]) >= 7


def test_out_chooses_the_file_and_makes_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "page.html"
    report_job(str(bench(tmp_path)), str(out))
    assert out.is_file() and str(out) in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"`out` must be a file, got the directory .*; write --out .*report\.html"):
        report_job(str(tmp_path / "demo" / "bench"), str(tmp_path))


def test_out_must_be_html_since_the_tables_stand_beside_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`out` must end in \.html, got .*page\.md; write --out .*page\.html"):
        report_job(str(bench(tmp_path)), str(tmp_path / "page.md"))


def test_tables_for_text_stand_beside_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_job(str(bench(tmp_path)))
    assert {p.name for p in (tmp_path / "demo").iterdir()} == {"bench", "report.html", "report.md", "tables.tex"}
    text = (tmp_path / "demo" / "report.md").read_text(encoding="utf-8")
    assert text.startswith("# A \\<test\\> benchmark\n") and all(f"- {note}" in text for note in NOTES)
    assert (tmp_path / "demo" / "tables.tex").read_text(encoding="utf-8").count(r"\begin{table}") > 5
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("report.html", "report.md", "tables.tex"))


def test_a_benchmark_without_pictures_says_so(tmp_path: Path) -> None:
    directory = bench(tmp_path)
    write(directory / "pictures.json", [])
    report_job(str(directory))
    assert "This benchmark saved none." in (directory.parent / "report.html").read_text()


# --- what is refused ---


def test_a_missing_directory_names_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a directory; `lcg bench --out .*nowhere` makes it"):
        report_job(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["results.csv", "provenance.json", "pictures.json"])
def test_a_missing_file_names_the_next_step(tmp_path: Path, name: str) -> None:
    directory = bench(tmp_path)
    (directory / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} does not exist; run `lcg bench` first"):
        report_job(str(directory))


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    directory = bench(tmp_path)
    (directory / "pictures" / "3.png").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"3\.png does not exist, but .*pictures\.json lists it; run `lcg bench`"
    ):
        report_job(str(directory))


def test_a_malformed_csv_is_refused_and_no_page_is_written(tmp_path: Path) -> None:
    directory = bench(tmp_path)
    with open(directory / "results.csv", "a") as file:
        file.write("lcg,unconditional,sharp,much,,,\n")
    with pytest.raises(ValueError, match=r"results\.csv, line \d+: `value` must be a finite number, got 'much'"):
        report_job(str(directory))
    assert not (directory.parent / "report.html").exists()


def test_files_that_are_not_json_or_hold_something_else_are_refused(tmp_path: Path) -> None:
    directory = bench(tmp_path)
    (directory / "provenance.json").write_text("{")
    with pytest.raises(ValueError, match=r"provenance\.json is not JSON: .*run `lcg bench` again"):
        report_job(str(directory))
    write(directory / "provenance.json", [])
    with pytest.raises(ValueError, match=r"provenance\.json must hold a JSON object, got list"):
        report_job(str(directory))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"notes": "one sentence"}, r"`notes` must be a list of strings, got 'one sentence'"),
        ({"commands": [1]}, r"`commands` must be a list of strings"),
        ({"versions": ["torch"]}, r"`versions` must map a package to its version"),
        ({"zero_shot": ["generate/beard & hats"]}, r"unknown task in `zero_shot`.*did you mean 'generate/beard & hat'"),
        ({"config": [1]}, r"`config` must be an object, and `folder` the benchmark's folder as it was given"),
        ({"folder": 1}, r"`config` must be an object, and `folder` the benchmark's folder"),
        ({"config": {"tasks": "all"}}, r"`tasks` of `config` must be a list of str, got 'all'"),
        ({"config": {"seeds": ["one"]}}, r"`seeds` of `config` must be a list of int, got \['one'\]"),
        ({"notes": []}, r"`notes` must say what the generator and the judge have seen, since zero-shot is claimed"),
    ],
)
def test_provenance_that_cannot_be_shown_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    directory = bench(tmp_path)
    change(directory / "provenance.json", **changes)
    with pytest.raises(ValueError, match=message):
        report_job(str(directory))


def test_missing_provenance_is_listed(tmp_path: Path) -> None:
    directory = bench(tmp_path)
    write(directory / "provenance.json", {"title": "t", "created": "c", "config": {}, "commands": [], "notes": []})
    with pytest.raises(ValueError, match=r"missing: lcg, versions; rerun the bench"):
        report_job(str(directory))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "formulae"}, r"unknown kind of entry 0 .*'formulae'; did you mean 'formula'"),
        ({"caption": None}, r"entry 0 must have the strings file, kind, method, task, title, caption"),
        ({"file": "../../secret.png"}, r"'\.\./\.\./secret\.png' lies outside"),
        ({"file": "results.csv"}, r"results\.csv is not a PNG; save pictures with"),
    ],
)
def test_pictures_that_cannot_be_shown_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    directory = bench(tmp_path)
    entries = json.loads((directory / "pictures.json").read_text())
    entries[0] |= changes
    write(directory / "pictures.json", entries)
    with pytest.raises(ValueError, match=message):
        report_job(str(directory))


# --- everything that a benchmark may hold ---


@pytest.fixture(scope="module")
def everything(made_up: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_up(tmp_path_factory.mktemp("everything"))
    report_job(str(folder))
    return folder


@pytest.fixture(scope="module")
def full(everything: Path) -> str:
    return (everything.parent / "report.html").read_text(encoding="utf-8")


def test_the_full_page_is_well_formed_and_loads_nothing(full: str) -> None:
    test_page_is_well_formed(full)
    test_page_loads_nothing(full)


def test_every_figure_and_table_has_the_commands_that_make_it_again(full: str) -> None:
    folded = re.findall(r'<details class="again"><summary>Reproduce</summary><pre[^>]*><code>(.*?)</code>', full, re.S)
    tables, charts = full.count('<div class="tabled">'), full.count('<div class="chart">')
    exhibits, heats = full.count('<section class="exhibit">'), full.count('<section class="heats">')
    assert min(tables, charts, exhibits, heats) > 1 and len(folded) == tables + charts + exhibits + heats
    commands = [html.unescape(text).splitlines() for text in folded]
    assert all(c[0].startswith("lcg bench --config runs/demo/bench/config.yaml --tasks ") for c in commands)
    assert {c[1] for c in commands} == {"lcg report runs/demo/bench-again --out runs/demo/bench-again/report.html"}


def test_without_a_folder_there_is_no_command(page: str) -> None:
    assert "Reproduce</summary>" not in page


def test_costs_and_comparisons_are_on_the_page_row_by_row(full: str, everything: Path) -> None:
    for name in ("results.csv", "costs.csv", "comparisons.csv"):
        lines = (everything / name).read_text().splitlines()
        assert f"<summary>{name}, {len(lines) - 1} rows</summary>" in full
        (text,) = re.findall(rf'<pre tabindex="0" aria-label="{name}">([^<]*)</pre>', full)
        assert html.unescape(text).splitlines() == lines


def test_synthetic_sources_are_told_from_real_ones(full: str) -> None:
    assert full.count(">synthetic sources</span>") == 1  # at the pictures; the numbers have a section of their own
    assert full.index("Editing, real sources") < full.index("Editing, synthetic sources")


def test_heat_maps_tell_by_number_what_they_tell_by_colour(full: str) -> None:
    cells = re.findall(r'<td( class="edited")?(?: style="--v:(\d+)%")? title="([^"]*)">([^<]*)</td>', full)
    assert len(cells) == 2 * 5 * 3 * 17 and all(percent == text for _, percent, _, text in cells)
    assert sum(bool(edited) for edited, *_ in cells) == 2 * 5 * (1 + 2 + 3)
    assert all((", edited:" in said) == bool(edited) for edited, _, said, _ in cells)


def test_numbers_on_heat_maps_have_contrast_at_both_ends_of_the_scale(full: str) -> None:
    for block in re.findall(r":root \{(.*?)\}", full, re.S):
        theme = dict(re.findall(r"--([\w]+): (#[0-9a-f]+);", block))
        assert contrast(theme["ink"], theme["heat"]) >= 4.5 and contrast(theme["ink"], theme["faint"]) >= 4.5
        assert contrast(theme["heat"], theme["faint"]) >= 2  # and the ends differ


# --- the first look, and many methods ---------------------------------------------------------------------------------


def test_the_first_look_stands_at_the_top_with_lcg_first(page: str) -> None:
    assert page.index("<h1>") < page.index('id="glance"') < page.index('id="pictures"')
    first = page[page.index('id="glance"') : page.index('id="pictures"')]
    assert "lcg against 1 other method on the same tasks" in first
    for caption in ("Formulas", "Zero-shot formulas", "Edits, all steps", "Trade-off"):
        table = first[first.index(f'<span class="stay">{caption}') :]
        assert re.findall('<th scope="row">([^<]*)</th>', table)[:2] == ["lcg", "latent arithmetic"]


def test_few_methods_are_not_folded(page: str) -> None:
    assert {a.get("class") for a in Page(page).all("details")} == {"raw"} and "<main>" in page


CROWD = ("lcg", *(f"base{i}" for i in range(8)))


def many(path: Path) -> Path:
    """Nine methods on four formulas, two of them unseen, and on a sequence of edits, with a picture of each."""
    directory = bench(path)
    rows: list[tuple[Any, ...]] = []
    formulas = [f"generate/{formula}" for formula in ("a", "b", "c", *FORMULAS)]
    pictures, rng = [], np.random.default_rng(0)
    for i, method in enumerate(CROWD):
        for task in (*formulas, *STEPS):
            metrics = ("joint_accuracy", "sharp") if task in formulas else ("edit_success", "kept_fine")
            rows += [(method, task, metric, 0.1 * i if i else 0.85, 0.001, 64, 0) for metric in metrics]
            rows += [(method, task, "evaluations", 10 * i, "", 64, 0), (method, task, "precision", 0.5, "", 64, 0)]
            if task != STEPS[0]:
                sheet = contact_sheet(rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8), 2)
                file = f"pictures/many-{len(pictures)}.png"
                sheet.save(directory / file)
                about = {"kind": "formula" if task in formulas else "edit", "method": method, "task": task}
                caption = f"Not chosen. Strength {i}."
                pictures.append({"file": file, **about, "title": task.partition("/")[2], "caption": caption})
    with open(directory / "results.csv", "w", newline="") as file:
        csv.writer(file).writerows([("method", "task", "metric", "value", "stderr", "n", "seed"), *rows])
    write(directory / "pictures.json", pictures)
    change(directory / "provenance.json", zero_shot=[f"generate/{formula}" for formula in FORMULAS])
    return directory


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = many(tmp_path_factory.mktemp("many"))
    report_job(str(directory))
    return (directory.parent / "report.html").read_text(encoding="utf-8")


def test_of_many_methods_the_pictures_of_lcg_and_the_three_best_are_in_view(crowded: str) -> None:
    pictures = crowded[crowded.index('id="pictures-formula"') : crowded.index('id="numbers"')]
    for section in re.findall(r'<section class="exhibit">(.*?)</section>', pictures, re.S):
        near, others = section.split('<details class="others">')
        who = '<span class="who"><b>([^<]*)</b>'
        assert re.findall(who, near) == ["lcg", "base5", "base6", "base7"]
        assert re.findall(who, others) == [f"base{i}" for i in range(5)] and "The other 5 methods" in others
        assert near.count(">Not chosen.</p>") == 1 and others.count("Strength 2.</span>") == 1


def test_of_many_tasks_two_seen_and_one_unseen_are_in_view(crowded: str) -> None:
    pictures = crowded[crowded.index('id="pictures-formula"') : crowded.index('id="pictures-edit"')]
    sections = re.findall(r'<section class="exhibit">(.*?)</section>', pictures, re.S)
    folded = [section.strip().startswith('<details class="group"><summary>') for section in sections]
    assert folded == [False, False, True, False, True]


def test_tables_of_many_methods_fold_by_task_under_their_leader(crowded: str) -> None:
    numbers = crowded[crowded.index('id="formulas"') : crowded.index('id="edits"')]
    groups = re.findall(r'<details class="group"( open)?><summary>.*?<code>([^<]*)</code>.*?</summary>', numbers)
    assert [bool(opened) for opened, _ in groups] == [True, False, False, False, False]
    assert numbers.count('<span class="leader">joint accuracy: lcg 0.850</span>') == 0
    assert numbers.count('<span class="leader won">joint accuracy: lcg 0.850</span>') == 5


def test_charts_of_many_methods_are_sorted_and_close_together(crowded: str) -> None:
    (first, *_) = re.findall(r'aria-label="a: joint accuracy and sharp by method.*?</svg>', crowded)
    names = re.findall(r'<text(?: class="title")? x="0"[^>]*>([^<]*)</text>', first)
    assert names == ["lcg", *(f"base{i}" for i in reversed(range(8)))]
    rows = [float(y) for y in re.findall(r'x="0" y="([\d.]+)"', first)]
    assert np.diff(rows).tolist() == [18.0] * 8


def test_print_unfolds_and_the_policy_needs_no_script_for_it(crowded: str) -> None:
    printed = crowded[crowded.index("@media print") :]
    assert "details::details-content { content-visibility: visible" in printed and "<script" not in crowded


def test_methods_without_an_answer_are_named_in_one_note(tmp_path: Path) -> None:
    directory = bench(tmp_path)
    notes = [f"{m} has no answer to generate/a | b and is left out there." for m in ("arithmetic", "pca")]
    notes += ["pca has no answer to generate/c and is left out there."]
    change(directory / "provenance.json", notes=[*NOTES, *notes])
    report_job(str(directory))
    page = (directory.parent / "report.html").read_text()
    assert "<li>latent arithmetic, PCA have no answer to generate/a | b and are left out there.</li>" in page
    assert "<li>PCA has no answer to generate/c and is left out there.</li>" in page
