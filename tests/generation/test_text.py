"""Descriptions in English: what is shown, who is asked, and what goes on without asking."""

import csv
import io
import json
from pathlib import Path

import pytest

from lcg import cli
from lcg.data.avatars import SCHEMA
from lcg.generation.text import RANKS, formula_of, read_synonyms
from lcg.guidance import parse

DOUBTFUL = "glasses and smile or hat"


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO())


def test_every_word_is_shown_with_what_it_became(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a smiling person with glasses and no beard"
    assert formula_of(text, SCHEMA) == "smile & glasses & ~beard"
    head, formula, words, choices = capsys.readouterr().out.split("\n\n")
    assert head == f"{text!r} is read as" and formula.strip() == "smile & glasses & ~beard"
    assert choices == "'smiling' is read as smile, not as mouth=smile\n"
    became = dict(line.split(maxsplit=1) for line in words.splitlines())
    assert list(became) == text.split()  # nothing is dropped
    assert (became["smiling"], became["glasses"], became["no"], became["beard"]) == ("smile", "glasses", "not", "beard")


def test_the_formula_is_one_that_parses_to_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("a hat or (glasses but no beard)", "red or blond hair and no smile"):
        formula = formula_of(text, SCHEMA, yes=True)
        assert str(parse(formula, SCHEMA)) == formula
    capsys.readouterr()


@pytest.mark.parametrize(
    ("typed", "agreed"), [("\n", True), ("Y\n", True), ("yes\n", True), ("n\n", False), ("", False)]
)
def test_on_a_terminal_it_asks(
    typed: str, agreed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    if agreed:
        assert formula_of("a hat", SCHEMA) == "hat"
    else:
        with pytest.raises(ValueError, match="declined; say it otherwise, or change --formula 'hat'"):
            formula_of("a hat", SCHEMA)
    assert "Generate that? [Y/n]" in capsys.readouterr().out


def test_without_a_terminal_only_a_doubtful_reading_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"more ways than one.*no terminal.*--yes true.*--formula '") as refusal:
        formula_of(DOUBTFUL, SCHEMA)
    choice = "'glasses and smile or hat' is read as (glasses & smile) | hat, not as glasses & (smile | hat)"
    assert choice in capsys.readouterr().out and choice in str(refusal.value)
    formula = formula_of(DOUBTFUL, SCHEMA, yes=True)
    assert choice in capsys.readouterr().out and formula in str(refusal.value)


def test_whoever_agrees_beforehand_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert formula_of("a hat", SCHEMA, yes=True) == "hat"
    assert "[Y/n]" not in capsys.readouterr().out


@pytest.mark.parametrize("name", RANKS)
def test_one_process_of_several_speaks(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert formula_of("a hat", SCHEMA) == "hat" and capsys.readouterr().out == ""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    with pytest.raises(ValueError, match="more ways than one"):  # all stop
        formula_of(DOUBTFUL, SCHEMA)


def test_synonyms_are_read_and_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("hipster: beard & glasses\nno fun: ~smile\n")
    assert read_synonyms(str(path)) == {"hipster": "beard & glasses", "no fun": "~smile"}
    assert formula_of("a hipster", SCHEMA, str(path)) == "beard & glasses"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- hat", r"must map phrases to formulas, got \['hat'\]"),
        ("young: 3", "must map phrases to formulas, got 'young': 3"),
        ("no: hat", "got False: 'hat'.*in quotes"),
        ("a: [", "is no YAML that can be read"),
    ],
)
def test_synonyms_that_are_none_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_synonyms(str(path))
    with pytest.raises(FileNotFoundError, match="no synonyms at nowhere; write a YAML file"):
        read_synonyms("nowhere")


# --- lcg generate ---


def generate(demo, out: Path, *more: str) -> int:
    quick = ("--num", "2", "--sampling.steps", "4", "--guidance.attempts", "1", "--device", "cpu")
    return cli.main(["generate", *demo.networks, *quick, "--out", str(out), *more])


def test_a_text_generates_what_its_formula_does(demo, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = ("--text", "a smiling person with glasses and no beard")
    assert generate(demo, tmp_path / "text", *text) == 0
    assert "smiling  smile" in capsys.readouterr().out
    assert generate(demo, tmp_path / "formula", "--formula", "smile & glasses & ~beard") == 0
    told = [json.loads((tmp_path / name / "provenance.json").read_text()) for name in ("text", "formula")]
    assert told[0]["formula"] == told[1]["formula"] == "smile & glasses & ~beard"
    images = [(tmp_path / name / "images/0001.png").read_bytes() for name in ("text", "formula")]
    assert images[0] == images[1]
    with (tmp_path / "text/samples.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    config = str(tmp_path / "text" / "config.yaml")
    assert text[1] in Path(config).read_text()
    assert cli.main(["generate", "--config", config, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again/images/0001.png").read_bytes() == images[0]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--text", "a hat", "--formula", "hat"), "`text` and `formula` say the same thing twice"),
        (("--formula", "hat", "--synonyms", "mine.yaml"), "`synonyms` are those of `text`"),
        (("--text", "a moose with a hat"), "unknown word 'moose'"),
        (("--text", DOUBTFUL), "can be read in more ways than one"),
        (("--text", "a hat", "--synonyms", "nowhere.yaml"), "no synonyms at nowhere.yaml"),
    ],
)
def test_refused_before_anything_is_touched(
    demo, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], message: str
) -> None:
    assert generate(demo, tmp_path / "out", *more) == cli.USAGE_ERROR
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and not (tmp_path / "out").exists()
