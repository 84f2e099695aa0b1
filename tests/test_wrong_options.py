"""What a wrong option is answered with; whole commands are in test_mistakes.py."""

from pathlib import Path

import pytest

from lcg.wrong_options import check_configs, explain

OPTIONS = ["num", "seed", "sampling", "sampling.steps", "inversion.steps", "guidance.max_step"]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            "Parser key \"num\":\n  Expected a <class 'int'>. Got value: four",
            "`--num`: expected a whole number, got four;",
        ),
        ("unrecognized arguments: --sede 1", "unknown option --sede; did you mean --seed?"),
        ("unrecognized arguments: --steps=1", "did you mean --sampling.steps or --inversion.steps?"),
        ("unrecognized arguments: --qqqq 1", "unknown option --qqqq; `lcg draw --help` lists the options"),
        ("unrecognized arguments: hat smile", "'hat' belongs to no option"),
        ("argument -c/--config: expected one argument", "`--config` needs a value"),
        (
            "Group 'guidance' does not accept option 'max-step'",
            "unknown option --guidance.max-step; did you mean --gui",
        ),
        ("the following arguments are required: num, path", "required, and not given: --num, path;"),
        ("something that nobody has\n  foreseen", "something that nobody has foreseen; `lcg draw --help`"),
    ],
)
def test_what_the_parser_says_becomes_what_a_user_can_act_on(message: str, told: str) -> None:
    assert told in explain(message, "draw", OPTIONS)


def test_of_several_types_those_are_named_that_a_user_would_give() -> None:
    message = (
        'Parser key "num":\n  Does not validate against any of the Union subtypes\n'
        "  Subtypes: [<class 'float'>, typing.Literal['a', 'b'], <class 'NoneType'>]\n  Errors:\n"
        "    - Expected a <class 'float'>\n    - Expected a typing.Literal['a', 'b']\n"
        "    - Expected a <class 'NoneType'>\n"
        "  Given value type: <class 'str'>\n  Given value: c"
    )
    assert explain(message, "draw", OPTIONS).startswith("`--num`: expected a number or one of a, b, got c;")


@pytest.mark.parametrize("words", [["--config", "{}"], ["--config={seed: 1}"], ["--config"], ["-c", "a: 1\nb: 2"], []])
def test_what_names_no_file_is_left_to_the_parser(words: list[str]) -> None:
    check_configs(words)


def test_all_files_are_looked_at(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("seed: 1\n")
    bad.write_text("- 1\n")
    check_configs(["-c", str(good), f"--config={good}"])
    with pytest.raises(ValueError, match=r"bad\.yaml must have an option per line, such as `seed: 1`, got \[1\]"):
        check_configs(["-c", str(good), f"--config={bad}"])
