"""What a benchmark can ask for, and the names under which results.csv keeps it."""

import pytest

from lcg.benchmarks.tasks import Edit, Generate, Reconstruction, Tradeoff, Unconditional, parse_task
from lcg.data.avatars import SCHEMA
from lcg.guidance import parse, parse_edit


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("unconditional", "unconditional"),
        ("reconstruction", "reconstruction"),
        ("generate/glasses&~beard", "generate/glasses & ~beard"),
        ("generate/hat & (smile | glasses)", "generate/hat & (smile | glasses)"),
        ("edit/+beard", "edit/+beard"),
        ("edit/beard +glasses -hat", "edit/+beard+glasses-hat"),
        ("edit/+hat hat_color=red", "edit/+hathat_color=red"),
        ("tradeoff/beard -hat", "tradeoff/+beard-hat"),
    ],
)
def test_names_are_those_of_the_results(text: str, name: str) -> None:
    task = parse_task(text, SCHEMA)
    assert task.name == name


def test_tasks_hold_what_was_read() -> None:
    assert isinstance(parse_task("unconditional", SCHEMA), Unconditional)
    assert isinstance(parse_task("reconstruction", SCHEMA), Reconstruction)
    assert parse_task("generate/hat & ~beard", SCHEMA) == Generate(parse("hat & ~beard", SCHEMA))
    edits = tuple(parse_edit(word, SCHEMA) for word in ("+beard", "-hat"))
    assert parse_task("edit/+beard   -hat", SCHEMA) == Edit(("+beard", "-hat"), edits)
    assert parse_task("tradeoff/+beard -hat", SCHEMA) == Tradeoff(Edit(("+beard", "-hat"), edits))


def test_every_step_of_a_sequence_is_a_task_of_its_own() -> None:
    task = parse_task("edit/+beard +glasses -hat", SCHEMA)
    assert isinstance(task, Edit)
    steps = task.steps()
    assert [step.name for step in steps] == ["edit/+beard", "edit/+beard+glasses", "edit/+beard+glasses-hat"]
    assert [len(step.edits) for step in steps] == [1, 2, 3] and steps[-1] == task


@pytest.mark.parametrize(
    "text", ["", "glasses", "generate", "generate/", "generate/ ", "edit/", "tradeoff/", "Unconditional", "edits/+a"]
)
def test_what_is_no_task_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"`tasks` has .*; expected unconditional, reconstruction, generate/FORMULA, edit/EDIT"
    ):
        parse_task(text, SCHEMA)


@pytest.mark.parametrize(("text", "near"), [("generate/glases", "'glasses'"), ("edit/+baerd", "'beard'")])
def test_names_that_do_not_exist_are_refused_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {near}"):
        parse_task(text, SCHEMA)
