import csv
import io
from pathlib import Path

import pytest

from lcg.conformance.outcome import Check, Measurement, Outcome
from lcg.conformance.results import COLUMNS, bound_of, number, reasons, summary, to_csv, to_html, to_text

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f64540"
    "0000000049454e44ae426082"
)


def outcomes() -> list[Outcome]:
    def check(group: str, method: str) -> Check:
        return Check(group, "line", method, "a & b", list)

    return [
        Outcome(check("formulas", "joint"), (Measurement("total variation", 0.0123, 0.02, 0.0111, 20_000),), 1.25),
        Outcome(
            check("formulas", "<joint head>"),
            (Measurement("total variation", 0.3, 0.03, 0.01, 500, advice="fit it longer"),),
            2.0,
        ),
        Outcome(check("controls", "product"), (Measurement("total variation", 0.21, 0.1, 0.01, 9, "wrong"),), 0.5),
        Outcome(check("controls", "negated score"), (), 0.1, 'ValueError: no, "never"'),
    ]


PROVENANCE = {
    "summary": "2 of 4 checks did not come out as they should, in 4 s",
    "created": "2026-01-01T00:00:00+00:00",
    "lcg": "0",
    "seed": 3,
    "quick": True,
    "command": "lcg verify --seed 3",
    "picture": "A picture.",
}


def test_csv_is_tidy_and_round_trips() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(outcomes()))))
    assert tuple(rows[0]) == COLUMNS
    assert [row["verdict"] for row in rows] == ["ok", "FAILED", "ok", "FAILED"]
    assert (rows[0]["value"], rows[0]["floor"], rows[0]["bound"], rows[0]["n"]) == ("0.0123", "0.0111", "0.02", "20000")
    assert rows[2]["expected"] == "wrong"
    assert (rows[3]["metric"], rows[3]["error"]) == ("", 'ValueError: no, "never"')


def test_text_has_a_line_per_number_under_its_group_and_says_what_failed() -> None:
    text = to_text(outcomes())
    lines = text.splitlines()
    assert lines[0] == "formulas: every connective, guided by the exact joint or by a joint head"
    rows = [line for line in lines if line.startswith(("  ok ", "  FAILED "))]
    assert len(rows) == 4
    assert len({line.index("  a & b  ") for line in rows}) == 1  # columns are aligned
    assert "ok      joint" in text and ">= 0.1000" in text
    assert "FAILED  formulas: <joint head>, a & b (line)" in text
    assert "        total variation is 0.3000, expected <= 0.0300; fit it longer" in text
    assert '        ValueError: no, "never"' in text


def test_page_loads_nothing_and_escapes_what_it_shows(tmp_path: Path) -> None:
    picture = tmp_path / "p.png"
    picture.write_bytes(PIXEL)
    page = to_html(outcomes(), picture, PROVENANCE)
    assert "http" not in page.replace("http-equiv", "")
    assert "&lt;joint head&gt;" in page and "<joint head>" not in page
    assert "data:image/png;base64," in page
    assert page.count('class="failure"') == 2
    assert "fit it longer" in page
    assert "lcg verify --seed 3" in page


def test_summary_counts_checks() -> None:
    assert summary(outcomes(), 3.6) == "2 of 4 checks did not come out as they should, in 4 s"
    assert summary(outcomes()[:1], 60.2) == "all 1 checks came out as they should, in 60 s"


def test_reasons_name_the_side_of_the_bound() -> None:
    control = Outcome(outcomes()[2].check, (Measurement("tv", 0.05, 0.1, expected="wrong", advice="no power"),), 0.0)
    assert reasons(control) == ["tv is 0.0500, expected >= 0.1000; no power"]
    assert bound_of(Measurement("tv", 0.0, 1e-9)) == "<= 1.0e-09"


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.0123"), (3.2e-16, "3.2e-16"), (0.0, "0.0000"), (None, "-"), (123456.0, "1.2e+05")]
)
def test_numbers_are_short_and_tell_something(value: float | None, text: str) -> None:
    assert number(value) == text
