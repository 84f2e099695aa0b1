"""What a benchmark can ask for, and the names under which results.csv keeps it."""

from __future__ import annotations

import pytest

from lcg.benchmarks.tasks import Edit, Generate, Scale, Single, Tradeoff, fill, parse_task
from lcg.data.avatars import SCHEMA
from lcg.guidance import parse, parse_edit


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("unconditional", "unconditional"),
        ("reconstruction", "reconstruction"),
        ("calibration", "calibration"),
        ("disentanglement", "disentanglement"),
        ("generate/glasses&~beard", "generate/glasses & ~beard"),
        ("generate/hat & (smile | glasses)", "generate/hat & (smile | glasses)"),
        ("scale/glasses&~beard", "scale/glasses & ~beard"),
        ("edit/+beard", "edit/+beard"),
        ("edit/beard +glasses -hat", "edit/+beard+glasses-hat"),
        ("edit/+hat hat_color=red", "edit/+hathat_color=red"),
        ("synthetic/beard -hat", "synthetic/+beard-hat"),
        ("tradeoff/beard -hat", "tradeoff/+beard-hat"),
    ],
)
def test_names_are_those_of_the_results(text: str, name: str) -> None:
    assert parse_task(text, SCHEMA).name == name


def test_tasks_hold_what_was_read() -> None:
    assert parse_task("unconditional", SCHEMA) == Single("unconditional")
    assert parse_task("calibration", SCHEMA) == Single("calibration")
    generate = Generate(parse("hat & ~beard", SCHEMA))
    assert parse_task("generate/hat & ~beard", SCHEMA) == generate
    assert parse_task("scale/hat & ~beard", SCHEMA) == Scale(generate)
    edits = tuple(parse_edit(word, SCHEMA) for word in ("+beard", "-hat"))
    assert parse_task("edit/+beard   -hat", SCHEMA) == Edit(("+beard", "-hat"), edits)
    assert parse_task("synthetic/+beard -hat", SCHEMA) == Edit(("+beard", "-hat"), edits, synthetic=True)
    assert parse_task("tradeoff/+beard -hat", SCHEMA) == Tradeoff(Edit(("+beard", "-hat"), edits))


@pytest.mark.parametrize("kind", ["edit", "synthetic"])
def test_every_step_of_a_sequence_is_a_task_of_its_own(kind: str) -> None:
    task = parse_task(f"{kind}/+beard +glasses -hat", SCHEMA)
    assert isinstance(task, Edit)
    steps = task.steps()
    assert [step.name for step in steps] == [f"{kind}/+beard", f"{kind}/+beard+glasses", f"{kind}/+beard+glasses-hat"]
    assert [len(step.edits) for step in steps] == [1, 2, 3] and steps[-1] == task
    assert all(step.synthetic == (kind == "synthetic") for step in steps)


def test_places_are_filled_with_the_world_s_attributes() -> None:
    assert fill("generate/{1} & ~{2} & {1}", ["glasses", "hat"]) == "generate/glasses & ~hat & glasses"
    assert fill("edit/+{2} -{10}", [f"a{number}" for number in range(1, 11)]) == "edit/+a2 -a10"
    assert fill("unconditional", []) == "unconditional"


@pytest.mark.parametrize(("text", "needed"), [("generate/{3}", 3), ("generate/{0}", 1)])
def test_a_place_without_an_attribute_is_refused(text: str, needed: int) -> None:
    with pytest.raises(ValueError, match=rf"but `attributes` names 2; name at least {needed}, as configs/world"):
        fill(text, ["glasses", "hat"])


@pytest.mark.parametrize(
    "text",
    [
        *("", "glasses", "generate", "generate/", "generate/ ", "scale/", "edit/", "synthetic/ ", "tradeoff/"),
        *("Unconditional", "unconditional/", "calibration/hat", "edits/+a"),
    ],
)
def test_what_is_no_task_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"`tasks` has .*; expected unconditional, reconstruction, calibration, disentanglement, "
        r"generate/FORMULA, scale/FORMULA, edit/EDIT",
    ):
        parse_task(text, SCHEMA)


@pytest.mark.parametrize(
    ("text", "near"), [("generate/glases", "'glasses'"), ("scale/glases", "'glasses'"), ("edit/+baerd", "'beard'")]
)
def test_names_that_do_not_exist_are_refused_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {near}"):
        parse_task(text, SCHEMA)
